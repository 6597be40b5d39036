// Package deploy is what warifu is installed with: units, packages, a chart, filters. Its files are data that others
// read (README.md beside them says who), and its tests hold each to what it says, with the program that reads it.
//
// They are here because they are manifests as well: app.yml says what an app needs to be run, these say it of warifu
// itself. They have no place of their own at the top of the repository, which is for what is imported, and none in cmd,
// which is for what is compiled.
//
// # Tests
//
// What takes seconds is in make test. What builds or installs something has the build tag packages and is run by make
// packages, on what that has made (WARIFU_PACKAGES names the directory); what needs a cluster has the tag kubernetes
// and is run by make kubernetes.
package deploy
