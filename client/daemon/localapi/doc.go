// Package localapi is the interface of a user's daemon, generated from client/daemon/openapi.yaml: the routes that
// package daemon serves, the HTTP client that the command line uses, and the shapes of both. It checks nothing: who is at
// the other end of the socket is for package daemon to say.
package localapi
