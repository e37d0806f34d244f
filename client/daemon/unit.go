package daemon

import (
	"errors"
	"strings"
)

// UnitName is the name of the systemd user unit.
const UnitName = "relay.service"

// UnitMark is the first line of a unit that this program wrote.
const UnitMark = "# Written by: relay daemon install"

// Unit is a systemd user unit that runs a command line, the program's absolute path first.
//
// A user's manager has no more rights than the user: what follows needs none. It leaves the file system as it is, because the daemon
// reads the files that its user sends, and writes those that he gets, wherever they are.
func Unit(argv []string) (string, error) {
	var quoted []string
	for _, word := range argv {
		q, err := quoteUnit(word)
		if err != nil {
			return "", err
		}
		quoted = append(quoted, q)
	}
	return UnitMark + `
[Unit]
Description=Relay: messages through the relays of your friends
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=` + strings.Join(quoted, " ") + `
Restart=on-failure
RestartSec=10
# 2: the command line is wrong; 5: the keys are locked and nobody can be asked.
RestartPreventExitStatus=2 5
TimeoutStopSec=30
NoNewPrivileges=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
LimitCORE=0

[Install]
WantedBy=default.target
`, nil
}

// quoteUnit is a word of ExecStart, systemd.service(5): in double quotes, with what has a meaning there taken away from it.
func quoteUnit(word string) (string, error) {
	if strings.ContainsAny(word, "\n\r\x00") {
		return "", errors.New("a path with a line break in it cannot stand in a systemd unit")
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(word) + `"`, nil
}
