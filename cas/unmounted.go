package cas

// Unmounted returns those of names, each an element of a path, that no mount of
// any living process' mount namespace shows in its mount point, root or
// options; none where that cannot be known for certain.
func Unmounted(names []string) []string { return unmounted(names) }

// BootID is the beginning of a number that each boot of the machine has anew; "0" where
// it cannot be known.
func BootID() string { return bootID() }
