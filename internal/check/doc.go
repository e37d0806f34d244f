// Package check holds what is checked about the project as a whole: that packages say what they are for, that
// the user's program links nothing of a server, and that the scripts do what they say. It is tests only;
// scripts/check.sh calls them by name.
package check
