// Package relaybackup takes a copy of a whole relay while it serves, proves that it can be put back, and puts it back.
//
// # What a backup is
//
// A folder that only its owner enters:
//
//	manifest.json    what is in it, of when, and a SHA-256 of every other file; written last
//	database.dump    pg_dump's custom format
//	folder/…         files of the relay's folder under their names there: key, configuration, words, certificates, wallet
//	elsewhere/…      files that the configuration names and that stand somewhere else
//
// It is made under a name that begins with a dot and gets its own when everything in it is on the disk: half a backup is never taken for one.
// The manifest says how many rows each table has in the very snapshot that was dumped, so that what comes back is counted against it.
//
// # Why a dump
//
// A copy of the cluster's files (pg_basebackup) is put back faster, for no index has to be built. But it takes all databases of a server, with
// what is free in their files and with their log; it fits one major version on one architecture; it wants a role that may replicate, which
// whoever rents a database does not have; and it copies a rotten page as it is. A dump reads every row, so a page that does not read
// shows while the database is still there; it can be put into a newer PostgreSQL, and into a database of one's own from
// a private cluster or the other way round. docs/operators.md has figures for both directions.
//
// # A new epoch
//
// The one row of relay_cursor is not in the dump, but in the manifest. Putting a backup back writes it, under a new epoch, as the last thing: readers who are
// ahead of what came back start over, and nobody can forget to say so. Until that row is there no relay starts on the database, so one that
// was filled only half is not served from either.
//
// # Rehearsal
//
// [Rehearse] restores into a private cluster that is thrown away and checks what came back as [Restore] does: rows, schema, indexes, that accounts come to
// what is stored, that envelopes are still what was signed. cmd/relayd adds what needs the relay's keys.
package relaybackup
