// Package registry speaks with registries of images, by the OCI distribution
// specification (the Docker Registry HTTP API V2). It knows images, see package image,
// and no containers.
package registry
