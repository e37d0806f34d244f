package daemon

import (
	"net"
	"strings"
)

// Notify tells the service manager how the daemon is, in the words of sd_notify(3), if it was started by one that wants to know:
// socket is the value of NOTIFY_SOCKET. What keeps it from being told is no matter.
func Notify(socket string, words ...string) {
	if socket == "" {
		return
	}
	if abstract, ok := strings.CutPrefix(socket, "@"); ok {
		socket = "\x00" + abstract
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(strings.Join(words, "\n")))
}
