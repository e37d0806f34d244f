//go:build !unix

package doctor

// Limits looks at how many files a process may open, where systems have such a limit.
func Limits() Finding { return found("limits", OK, "", "this system has no limit of open files") }
