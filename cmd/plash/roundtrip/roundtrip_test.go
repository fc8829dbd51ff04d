package roundtrip

import "testing"

// TestRoundTrips has one image take all ways.
func TestRoundTrips(t *testing.T) {
	needs(t, "docker", "dockerd", "podman", "buildah", "skopeo", "umoci", "runc", "crun", "docker-registry")
	w := newWorld(t)
	t.Run("ways", func(t *testing.T) {
		for name, way := range map[string]func(*testing.T){
			"docker":     w.throughDocker,
			"podman":     w.throughPodman,
			"skopeo":     w.throughSkopeo,
			"registries": w.throughRegistries,
			"umoci":      w.throughUmoci,
			"plash-runc": w.throughRunc,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				way(t)
			})
		}
	})
}
