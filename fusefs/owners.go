package fusefs

import (
	"os"

	"github.com/moby/sys/user"
	"github.com/moby/sys/userns"
)

// presentOwners gives the owners that this process can show for those that files have, nil if
// it can show all of them: in a user namespace, ids that are not mapped are nobody's, which makes
// files that not even their directory's owner may write to, and that overlayfs does not copy
// up (EOVERFLOW). They become this process' own.
func presentOwners() func(uid, gid uint32) (uint32, uint32) {
	if !userns.RunningInUserNS() {
		return nil
	}
	uids, uidErr := user.CurrentProcessUIDMap()
	gids, gidErr := user.CurrentProcessGIDMap()
	if uidErr != nil || gidErr != nil {
		return nil
	}
	me, mine := uint32(os.Geteuid()), uint32(os.Getegid())
	return func(uid, gid uint32) (uint32, uint32) {
		if !mapped(uids, uid) {
			uid = me
		}
		if !mapped(gids, gid) {
			gid = mine
		}
		return uid, gid
	}
}

func mapped(maps []user.IDMap, id uint32) bool {
	for _, m := range maps {
		if n := int64(id) - m.ID; n >= 0 && n < m.Count {
			return true
		}
	}
	return false
}
