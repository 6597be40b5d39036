// Command runtimekubernetes is the runtime `kubernetes`: it gives the environment to Deployments, StatefulSets and
// DaemonSets. It is an executable of its own, with a go.mod of its own, so that who has no cluster does not carry the
// client of one.
//
// # Which workloads
//
// Those in one namespace that carry the labels of the target, or that the config names:
//
//	dev.takos.app        the name of the app
//	dev.takos.container  the key below spec.containers, or
//	dev.takos.worker     the key below spec.workers, or
//	dev.takos.service    the key below spec.services
//
// Every container of the pod template gets the variables, init containers do not. The annotation dev.takos.containers
// of the workload ("main,worker") says which ones, when others need not know the secret.
//
// # What is written
//
// For each target one Secret, warifu-<app>-<name>-<hash>, by server-side apply. Its annotations (dev.takos.warifu.*)
// hold generation, fence, the server's keyed digest, and a seal, which is a fingerprint of the values under a salt that
// is in the Secret alone. Labels and templates are read by many who may not read Secrets; what is there says nothing.
//
// Then in the workload, by server-side apply as well, with the Secret's name as the field manager:
//
//   - a variable of each container for each of ours, which refers to the Secret. Not envFrom: that list has one owner,
//     so that an app with an envFrom of its own could never get ours, while each variable has its own.
//   - an annotation of the pod template with generation and seal, so that pods are replaced when values change.
//   - for an app that needs no secret, whose environment has OAUTH_CLIENT_ASSERTION_FILE: a projected token of the
//     pod's service account at that path, for the audience OAUTH_ISSUER.
//
// A field that another manager has is never taken by force: the push fails and names it and its owner. This is tried
// with a dry run before anything is written. The exceptions are the Secret, which is ours alone, and the stamp in the
// template, which kubectl rollout undo brings back as it was. What others do to these is drift.
//
// A workload that is not the target's any more, because its labels have gone, loses our fields with the next push.
//
// # When it is ready
//
// When the controller of each workload says so in its status: it has seen the change, every pod is of the new template
// and available, and no old one is left. Until then the state is ROLLING, at most for rolloutTimeout. The old pods keep
// the environment that they were started with; one whose container is restarted meanwhile gets the new one.
//
// # Crashes and races
//
// Workloads are read before the Secret and written after it, each only in the version that was read. So of two servers
// whose pushes cross, the older one's fails at the Secret or at a workload, and begins anew: then it learns that it is
// the older one. A controller that writes a status in between has the same effect, and the second try gets through.
//
// A workload whose template does not have the Secret's seal has not been given its variables yet. That is found by
// whoever looks next, and the next push of the same generation goes on with it.
//
// RemoveEnv first takes our fields out of every workload of the namespace that has some, and then deletes the Secret.
// In between it can be called again.
package main
