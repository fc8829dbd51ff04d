package posixtest

// Overlayfs is what is known about the kernel's overlayfs over layers of another
// filesystem, with the options that plash mounts it with (redirect_dir=nofollow,
// metacopy=off, index=off, xino=on) and an upper directory on ext4. Its own
// documentation has most of it: Documentation/filesystems/overlayfs.rst,
// "Non-standard behavior".
func Overlayfs() Options {
	const (
		links   = "without index=on, copying up takes a hard link from its other names"
		count   = "without index=on, link counts are those of the layer that the file is in"
		copied  = "what a reader has mapped stays with the lower file; the reader itself as well, on older kernels"
		removed = "a lower file without a name cannot be copied up"
	)
	return Options{
		Lower:            true,
		MovesNoLowerDirs: true,
		Known: map[string]string{
			"mmap/shared, of a reader/lower": copied,

			"open unlinked/attributes by a reader/lower": removed,
			"open unlinked/opened again/lower":           removed,
			"open unlinked/read/lower":                   count,
			"open unlinked/directory/lower":              count,
			"open unlinked/fifo and symlink/lower":       count,
			"rename/while open/lower":                    count,
			"open unlinked/one of two names/lower":       links,

			"rename/onto a link of the same inode/lower": links,
			"rename matrix/* over hard link/lower":       count,
			"rename matrix/hard link */lower":            links,
			"rename matrix/* with hard link/lower":       links,
			"link/together */lower":                      links,
			"link/one */lower":                           count,
			"link/ctime/lower":                           links,
			"special/fifo of two names/lower":            links,

			"space/data and holes/lower": "holes are looked for in pieces of 1 MiB when a file is copied up",
			"directory/link count/lower": "directories of several layers have the link count 1",
			"special/device 0:0":         "it would be a whiteout",
		},
		May: map[string]string{
			"open/reader before the first writer/lower": copied,
			"copy/copy_file_range*/lower":               "EXDEV where the layers are on another filesystem than the upper directory",
		},
	}
}

// Tmpfs is what is known about tmpfs.
func Tmpfs() Options {
	const allocate = "tmpfs can allocate and punch holes, nothing else"
	return Options{
		Lower: true,
		Known: map[string]string{
			"data/too far":           "files may be as large as offsets are",
			"space/zero a range":     allocate,
			"space/collapse a range": allocate,
			"space/insert a range":   allocate,
		},
	}
}
