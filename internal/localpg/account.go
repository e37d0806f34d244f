package localpg

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// account is the system user whose processes the cluster consists of.
type account struct {
	name     string
	uid, gid uint32
	groups   []uint32
	switched bool // it is not the user this process runs as
}

// ownAccount is the user this process runs as, or the unprivileged one that stands in for root.
func ownAccount() (account, error) {
	if uid := os.Geteuid(); uid != 0 {
		return accountByID(uint32(uid))
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		return fromUser(u)
	}
	return account{}, fmt.Errorf("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as: install the system's postgresql package, or start as an ordinary user")
}

func accountByID(uid uint32) (account, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return account{}, fmt.Errorf("PostgreSQL needs a user with a name, and user %d has none in /etc/passwd: give it one, or name a database elsewhere in database-url: %w", uid, err)
	}
	return fromUser(u)
}

func fromUser(u *user.User) (account, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", u.Username, err)
	}
	a := account{name: u.Username, uid: uint32(uid), gid: uint32(gid), switched: int(uid) != os.Geteuid()}
	ids, err := u.GroupIds()
	if err != nil {
		return account{}, fmt.Errorf("groups of user %s: %w", u.Username, err)
	}
	for _, id := range ids {
		group, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("groups of user %s: %w", u.Username, err)
		}
		a.groups = append(a.groups, uint32(group))
	}
	return a, nil
}

// attributes makes a child run as the account, in a session of its own: a Ctrl-C in the terminal is for the
// relay, which finishes what it accepted before it stops the database.
func (a account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if a.switched {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
	}
	return attr
}

// give hands a path to the account.
func (a account) give(path string) error {
	if !a.switched {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}
