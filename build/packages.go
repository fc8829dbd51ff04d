package build

import (
	"fmt"
	"strings"
)

// A manager is a package manager: lines of script in which {} stands for the
// packages.
type manager struct {
	name  string
	lines []string
}

// silently wraps housekeeping that nobody wants to see in a log: set -x is off
// in a subshell, so it stays as it was outside.
func silently(lines ...string) string {
	return "(\n\t{ set +x; } 2>/dev/null\n\t" + strings.Join(lines, "\n\t") + "\n)"
}

// What the lines below have in common: nothing is asked and nothing needs a
// terminal; the distribution decides what is installed along (recommended
// packages, weak dependencies), as on any machine of it; lists and archives that
// were downloaded do not stay in the layer.
var (
	// aptUpdate and aptInstall say what goes wrong, and which packages are unpacked and set up:
	// not what is downloaded, and no percentages, which are for terminals. debconf(7) warns of
	// apt-utils, which minimal images lack, and of the missing terminal.
	aptUpdate = "apt-get update -qq"
	// aptInstall needs lists. Where the user wrote a configuration file before
	// the package came, it is kept. invoke-rc.d(8) asks policy-rc.d whether it may
	// start a service: not while a layer is built, where it would run on the
	// host's network until the layer is done.
	aptInstall = []string{
		silently(
			"if ! test -e /usr/sbin/policy-rc.d; then",
			"\tprintf '#!/bin/sh\\n# plash\\nexit 101\\n' >/usr/sbin/policy-rc.d",
			"\tchmod 755 /usr/sbin/policy-rc.d",
			"fi",
		),
		"DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -qq -y -o Dpkg::Use-Pty=0" +
			" -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold {}",
	}
	aptClean = silently(
		"if grep -qsx '# plash' /usr/sbin/policy-rc.d; then",
		"\trm /usr/sbin/policy-rc.d",
		"fi",
		"apt-get clean",
		"rm -rf /var/lib/apt/lists/*",
	)
)

// managers are the package managers that plash knows.
var managers = []manager{
	{"apt", append(append([]string{aptUpdate}, aptInstall...), aptClean)},
	{"apk", []string{
		"apk update",
		"apk add {}",
		silently("rm -rf /var/cache/apk/*"),
	}},
	{"dnf", []string{
		"dnf install -y {}",
		silently("dnf clean all >/dev/null", "rm -rf /var/cache/dnf/* /var/cache/libdnf5/*"),
	}},
	{"yum", []string{
		"yum install -y {}",
		silently("yum clean all >/dev/null", "rm -rf /var/cache/yum/* /var/cache/dnf/*"),
	}},
	// Installing from newer lists without upgrading (-Sy) breaks what is there:
	// Arch supports no partial upgrades.
	{"pacman", []string{
		"pacman -Syu --noconfirm --needed {}",
		silently("rm -rf /var/cache/pacman/pkg/* /var/lib/pacman/sync/*"),
	}},
	// An image without the ebuild repository gets it for the time of the layer.
	{"emerge", []string{
		"if ! test -e /var/db/repos/gentoo/profiles && ! test -e /usr/portage/profiles; then",
		"\temerge-webrsync --quiet",
		"\ttouch /var/db/repos/gentoo/.plash",
		"fi",
		"emerge --ask=n --quiet-build=y --nospinner {}",
		silently(
			"if test -e /var/db/repos/gentoo/.plash; then",
			"\trm -rf /var/db/repos/gentoo/* /var/db/repos/gentoo/.[!.]*",
			"fi",
			"rm -rf /var/cache/distfiles/* /usr/portage/distfiles/* /var/tmp/portage/*",
		),
	}},
	{"pip", pipLines("pip")},
	{"pip3", pipLines("pip3")},
	{"npm", []string{
		"npm install -g --no-audit --no-fund --no-update-notifier --cache=/tmp/.plash-npm {}",
		silently("rm -rf /tmp/.plash-npm"),
	}},
	// add-apt-repository takes one repository at a time, and updates the lists.
	{"add-apt-repository", append(append([]string{
		"if ! command -v add-apt-repository >/dev/null; then",
		aptUpdate,
	}, replaceAll(aptInstall, "software-properties-common")...),
		"fi",
		`for plash_repository in {}; do add-apt-repository -y "$plash_repository"; done`,
		aptClean,
	)},
}

// pipLines installs into the image's own Python, which belongs to nobody else
// here, also where the distribution's pip asks for a virtual environment
// (PEP 668). The variables are ignored by versions that do not know them, unlike
// options.
func pipLines(pip string) []string {
	return []string{
		"PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 " +
			pip + " install --no-input --no-cache-dir {}",
	}
}

// replaceAll puts text in the place of {} in lines.
func replaceAll(lines []string, text string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = strings.ReplaceAll(l, "{}", text)
	}
	return out
}

// script returns the lines for packages.
func (m manager) script(packages []string) string {
	return strings.Join(replaceAll(m.lines, quoteAll(packages)), "\n")
}

func (m manager) action() *action {
	args, help := "PKG…", "install packages with "+m.name
	if m.name == "add-apt-repository" {
		args, help = "REPO…", "add package sources, such as ppa:NAME/ARCHIVE"
	}
	return &action{
		Action: Action{Name: m.name, Args: args, Help: help, Group: groupPackages},
		min:    1, max: -1,
		eval: func(e *evaluator, s statement) error {
			e.emit(m.script(s.texts()))
			return nil
		},
	}
}

// isManagerName reports whether --defpm may call a package manager so.
func isManagerName(s string) bool { return consistsOf(s, letters+digits, "_.+-") }

// defpm defines a package manager, or defines one anew.
func (e *evaluator) defpm(s statement) error {
	m := manager{name: s.args[0].text, lines: s.texts()[1:]}
	if !isManagerName(m.name) {
		return s.usage("", "%s: not a name for a package manager: %s", s.name.text, Quote(m.name))
	}
	if old := e.actions.byLong[m.name]; old != nil && old.Group != groupPackages || m.name == "defpm" {
		return s.usage("take another name", "%s: --%s is an action already", s.name.text, m.name)
	}
	if !strings.Contains(strings.Join(m.lines, "\n"), "{}") {
		return s.usage("write {} where the packages go", "%s %s: no line holds {}", s.name.text, m.name)
	}
	e.actions.add(m.action())
	return nil
}

// A distribution is an image and the package manager that it has.
type distribution struct {
	name, short, image, manager string
}

var distributions = []distribution{
	{"alpine", "A", "alpine", "apk"},
	{"debian", "D", "debian", "apt"},
	{"ubuntu", "U", "ubuntu", "apt"},
	{"fedora", "F", "fedora", "dnf"},
	{"centos", "C", "centos", "yum"},
	{"arch", "R", "archlinux", "pacman"},
	{"gentoo", "G", "gentoo", "emerge"},
}

func (d distribution) action() *action {
	return &action{
		Action: Action{
			Name: d.name, Short: d.short, Args: "[PKG…]", Group: groupImages,
			Help: fmt.Sprintf("as --image %s --%s PKG…", d.image, d.manager),
		},
		max: -1,
		eval: func(e *evaluator, s statement) error {
			image := statement{name: s.name, args: []word{{d.image, s.name.from}}}
			if err := e.image(image); err != nil {
				return err
			}
			if len(s.args) == 0 {
				return nil
			}
			return e.call(e.actions.byLong[d.manager], s)
		},
	}
}
