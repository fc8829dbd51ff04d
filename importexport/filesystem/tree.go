package filesystem

import (
	"context"
	"fmt"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
	"golang.org/x/sys/unix"
)

// A node is an inode of the tree that is written.
type node struct {
	erofs.Inode
	parent  *node   // of a directory; the root is its own
	entries []entry // of a directory, sorted by name
	nlink   uint32

	number uint32 // in the image
	at     int64  // where in the image what the format puts there begins
	path   string // of one of its names, for errors; "" of the root
}

// An entry is a name in a directory.
type entry struct {
	name []byte // valid as long as the view
	*node
}

// readTree reads a whole tree, but no data and no attributes. Every inode is in the list
// once, the root first, a directory before what is in it. The meter is told how much data
// there is.
func (j *job) readTree() ([]*node, error) {
	r := &treeReader{ctx: j.ctx, view: j.view, links: map[erofs.NID]*node{}}
	root, err := r.node(j.view.Root())
	if err != nil {
		return nil, err
	}
	root.parent = root
	var data int64
	for i := 0; i < len(r.nodes); i++ { // which grows
		n := r.nodes[i]
		var k int64
		switch {
		case n.IsDir():
			err = r.dir(n)
		case n.IsRegular():
			k, err = dataIn(j.view, &n.Inode, 0, n.Size)
		}
		if err != nil {
			return nil, fmt.Errorf("/%s: %w", n.path, err)
		}
		data += k
	}
	j.meter.Expect(data)
	return r.nodes, nil
}

type treeReader struct {
	ctx   context.Context
	view  *cas.View
	nodes []*node
	links map[erofs.NID]*node // those that may have several names
}

func (r *treeReader) node(nid erofs.NID) (*node, error) {
	in, err := r.view.Inode(nid)
	if err != nil {
		return nil, err
	}
	n := &node{Inode: in}
	r.nodes = append(r.nodes, n)
	return n, nil
}

func (r *treeReader) dir(dir *node) error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	dir.nlink += 2
	var failed error
	err := r.view.ReadDir(&dir.Inode, func(d erofs.Dirent) bool {
		n := r.links[d.NID]
		if n == nil {
			if n, failed = r.node(d.NID); failed != nil {
				return false
			}
			n.path = string(d.Name)
			if dir.path != "" {
				n.path = dir.path + "/" + n.path
			}
			if n.Nlink > 1 && !n.IsDir() {
				r.links[d.NID] = n
			}
		}
		switch {
		case n.IsWhiteout(): // means nothing in a tree of its own
			r.nodes = r.nodes[:len(r.nodes)-1]
			return true
		case n.IsDir():
			n.parent = dir
			dir.nlink++
		default:
			n.nlink++
		}
		dir.entries = append(dir.entries, entry{d.Name, n})
		return true
	})
	if err == nil {
		err = failed
	}
	return err
}

// typeOf is the type of a node as directory entries of EROFS and ext4 have it.
func typeOf(n *node) byte {
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 1
	case unix.S_IFDIR:
		return 2
	case unix.S_IFCHR:
		return 3
	case unix.S_IFBLK:
		return 4
	case unix.S_IFIFO:
		return 5
	case unix.S_IFSOCK:
		return 6
	case unix.S_IFLNK:
		return 7
	}
	return 0
}
