// Package rest is the HTTP client of a relay's interface, generated from openapi.yaml: one method for
// each operation, and the shapes of replies. It signs and checks nothing: package client makes the
// envelopes that go in, and believes nothing that comes out before it has checked it.
//
// Bodies are envelopes, whose bytes are what is signed: pass them through the methods that end in
// WithBody, not as values that would be encoded anew.
package rest
