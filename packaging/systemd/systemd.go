// Package systemd holds relayd's system service for systemd. They are files, to be read and changed; relayd unit prints them for
// whoever has nothing but the program.
package systemd

import _ "embed"

// Unit is relayd.service.
//
//go:embed relayd.service
var Unit string

// Sysusers makes the user that the service runs as.
//
//go:embed sysusers.conf
var Sysusers string
