// Package killpoint lets a test kill a program at the n-th durable step of its contracts. Only programs that are built with the tag
// killpoints have it: in all others [At] is nil and costs nothing.
//
// A program built with it says each step that it reaches on standard error, as "killpoint 7 signed", and sends SIGKILL to
// itself at the one that the environment names:
//
//	KILL_AT=7 relay contract open ...   # dies at its seventh step
//	KILL_AT=0 relay contract open ...   # says its steps
package killpoint

// Variable is the environment's name of the step.
const Variable = "KILL_AT"
