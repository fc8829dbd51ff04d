package cas

// Unmounted returns those of names, each an element of a path, that no mount of
// any living process' mount namespace shows in its mount point, root or
// options; none where that cannot be known for certain.
func Unmounted(names []string) []string { return unmounted(names) }
