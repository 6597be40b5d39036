package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/warifu/warifu/plugins"
)

// requestLimit bounds each request to the cluster, the tries that its client makes by itself included. It is less than
// what the host waits for an observation, so that the answer says what hangs.
const requestLimit = 7 * time.Second

// resource is a kind of object that this plugin reads and writes.
type resource struct {
	kind string
	schema.GroupVersionResource
}

var secrets = resource{"Secret", schema.GroupVersionResource{Version: "v1", Resource: "secrets"}}

var workloadKinds = []*resource{
	{"Deployment", schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}},
	{"StatefulSet", schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}},
	{"DaemonSet", schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}},
}

func kindOf(name string) *resource {
	for _, r := range workloadKinds {
		if r.kind == name {
			return r
		}
	}
	return nil
}

// object begins what is applied.
func (r *resource) object(metadata map[string]any) map[string]any {
	return map[string]any{"apiVersion": r.GroupVersion().String(), "kind": r.kind, "metadata": metadata}
}

// cluster is one namespace of one cluster. Its errors are a [refusal] when the cluster says no to what was asked, and
// otherwise say in which way it does not answer.
type cluster struct {
	client    dynamic.Interface
	host      string
	namespace string
}

func dial(config *rest.Config, namespace string) (*cluster, error) {
	config.QPS = -1                           // the cluster has limits of its own; a wait here would look like one there
	config.WarningHandler = rest.NoWarnings{} // they would be printed
	config.UserAgent = "warifu-runtime-kubernetes/" + version
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &cluster{client: client, host: config.Host, namespace: namespace}, nil
}

// refusal is what the cluster does not do, whoever asks again, until something else changes.
type refusal struct {
	what string // was asked
	err  *apierrors.StatusError
}

func (r *refusal) Error() string { return r.what + ": " + r.err.Error() }

func (r *refusal) Unwrap() error { return r.err }

func (c *cluster) get(ctx context.Context, r *resource, name string) (*unstructured.Unstructured, error) {
	var out *unstructured.Unstructured
	err := c.ask(ctx, fmt.Sprintf("get %s/%s", r.kind, name), func(ctx context.Context) (err error) {
		out, err = c.client.Resource(r.GroupVersionResource).Namespace(c.namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return out, err
}

func (c *cluster) list(ctx context.Context, r *resource, selector string) ([]unstructured.Unstructured, error) {
	var out *unstructured.UnstructuredList
	err := c.ask(ctx, "list "+r.Resource, func(ctx context.Context) (err error) {
		out, err = c.client.Resource(r.GroupVersionResource).Namespace(c.namespace).List(ctx,
			metav1.ListOptions{LabelSelector: selector})
		return err
	})
	if err != nil {
		return nil, err
	}
	return out.Items, nil
}

// create makes an object and gives it as it is then.
func (c *cluster) create(ctx context.Context, r *resource, manager string,
	object map[string]any) (*unstructured.Unstructured, error) {
	var out *unstructured.Unstructured
	err := c.ask(ctx, "create "+r.Resource, func(ctx context.Context) (err error) {
		out, err = c.client.Resource(r.GroupVersionResource).Namespace(c.namespace).Create(ctx,
			&unstructured.Unstructured{Object: object}, metav1.CreateOptions{FieldManager: manager})
		return err
	})
	return out, err
}

// applying is how an object is applied. The object says which version was read: when it is another one by now, or has
// gone, that is a conflict.
type applying struct {
	manager string
	force   bool
	dry     bool
}

func (c *cluster) apply(ctx context.Context, r *resource, name string, object map[string]any, how applying) error {
	options := metav1.ApplyOptions{FieldManager: how.manager, Force: how.force}
	if how.dry {
		options.DryRun = []string{metav1.DryRunAll}
	}
	return c.ask(ctx, fmt.Sprintf("apply %s/%s", r.kind, name), func(ctx context.Context) error {
		_, err := c.client.Resource(r.GroupVersionResource).Namespace(c.namespace).Apply(ctx, name,
			&unstructured.Unstructured{Object: object}, options)
		return err
	})
}

// delete takes away exactly what was read; that it is gone is fine.
func (c *cluster) delete(ctx context.Context, r *resource, read *unstructured.Unstructured) error {
	uid, resourceVersion := read.GetUID(), read.GetResourceVersion()
	err := c.ask(ctx, fmt.Sprintf("delete %s/%s", r.kind, read.GetName()), func(ctx context.Context) error {
		return c.client.Resource(r.GroupVersionResource).Namespace(c.namespace).Delete(ctx, read.GetName(),
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &resourceVersion}})
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// ask makes a request within its time and gives its error a meaning.
func (c *cluster) ask(ctx context.Context, what string, request func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	err := request(limited)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	var status *apierrors.StatusError
	switch {
	case limited.Err() != nil:
		return fmt.Errorf("%w: %s: the cluster at %s has not answered within %s: %w", plugins.ErrUnavailable, what, c.host,
			requestLimit, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%w: %s: the cluster at %s does not accept the credentials: see the token or "+
			"certificate of the config",
			plugins.ErrUnavailable, what, c.host)
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot "): // by RBAC; admission says something else
		return fmt.Errorf("%w: %s: %w: grant it by the Role in role.yaml", plugins.ErrUnavailable, what, err)
	case errors.As(err, &status) && refused(status):
		return &refusal{what, status}
	}
	return fmt.Errorf("%w: %s at %s: %w", plugins.ErrUnavailable, what, c.host, err)
}

// refused reports whether an answer is about what was asked, and not about how the cluster is at the moment.
func refused(status *apierrors.StatusError) bool {
	code := status.ErrStatus.Code
	return code >= 400 && code < 500 && code != 429 && code != 408
}
