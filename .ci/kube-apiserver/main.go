// Command kube-apiserver is the one of Kubernetes, as a module of its own: tests run it, and nothing is linked to it.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
