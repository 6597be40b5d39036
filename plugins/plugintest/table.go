package plugintest

import (
	"context"

	"github.com/warifu/warifu/plugins"
)

// check is one row of the table that tests and `warifu plugin verify` share.
type check struct {
	name   string
	kind   plugins.Kind // empty: both kinds
	remedy string       // what to do when it fails
	run    func(ctx context.Context, b *bench) error
}

const checkStart = "starts"

// table holds the checks in the order in which they are made. The first is made
// by begin.
var table = []check{
	{checkStart, "", "give it its config; how a plugin starts is in the documentation of plugins/plugintest", nil},
	{"handshake and mutual TLS", "", "require and verify the certificate in PLUGIN_CLIENT_CERT, and listen in " +
		"PLUGIN_UNIX_SOCKET_DIR only", handshake},
	{"clean stdout", "", "print nothing on stdout but the handshake line; log to stderr", cleanStdout},
	{"description", "", "answer Describe before Configure, with a name, a version and known target kinds", description},
	{"configuration", "", "refuse a config that is not an object, or has a setting that you do not know, with " +
		"InvalidArgument", configuration},
	{"bad requests", "", "check what a request holds before using it and answer InvalidArgument", badRequests},

	{"push, observe, list and remove", plugins.RuntimeKind, "do what pluginpb says about the four calls",
		pushObserveRemove},
	{"duplicate push", plugins.RuntimeKind,
		"answer a push of the generation and digest that the target has with its status, and roll out nothing",
		duplicatePush},
	{"stale push", plugins.RuntimeKind, "compare generation and fence with those kept at the target; answer " +
		"FailedPrecondition when either is older", stalePush},
	{"reordered pushes", plugins.RuntimeKind, "compare and write under one lock for each target", reorderedPushes},
	{"digest conflict", plugins.RuntimeKind,
		"answer InvalidArgument to the generation that the target has with another digest", digestConflict},
	{"memory at the target", plugins.RuntimeKind,
		"keep generation, fence and digest where the variables live, not in the process", memoryAtTarget},
	{"variables of others", plugins.RuntimeKind,
		"change only the variables of the push and those that you put there before", variablesOfOthers},
	{"variables that are no longer wanted", plugins.RuntimeKind,
		"take away what an older push set and the new one has not", unwantedVariables},
	{"values", plugins.RuntimeKind, "carry every value byte for byte, or answer FAILED, not retryable, and let the old " +
		"environment serve", values},
	{"drift", plugins.RuntimeKind, "compare what is there with what was pushed in ObserveEnv, and put it right on " +
		"the same push", drift},
	{"failed rollout", plugins.RuntimeKind,
		"start the new beside the old, take the old away only when the new works, and answer FAILED with a diagnostic",
		failedRollout},
	{"killed in the middle of a push", plugins.RuntimeKind,
		"replace in one step (write aside, sync, rename) and finish on the next push what was begun", killedMidPush},
	{"cancelled push", plugins.RuntimeKind,
		"give locks back when the call's context ends, and leave old or new, nothing between", cancelledPush},
	{"32 targets at once", plugins.RuntimeKind, "lock by target, and share nothing else between calls", manyTargets},

	{"same question, same answer", plugins.HookKind,
		"decide by the request alone: no clock, no randomness, no order of a map", deterministic},
	{"answers by the contract", plugins.HookKind,
		"name each target once, with valid variable names and no secret of a client that has none", hookAnswers},
	{"no side effects", plugins.HookKind, "write nothing, start nothing, keep nothing: the server asks for a plan as " +
		"often as it likes", noSideEffects},
	{"32 questions at once", plugins.HookKind, "Evaluate runs in several calls at a time: share nothing that changes",
		manyQuestions},
	{"denial", plugins.HookKind, "refuse with a denial that has a code, a message and a remedy for people, not " +
		"with an error", denial},

	{"stopped process", "", "keep nothing in memory that a new process does not find again", stoppedProcess},
	{"leaves nothing behind", "", "end within 3 s of plugin.GRPCController/Shutdown, with your children, and keep " +
		"sockets in PLUGIN_UNIX_SOCKET_DIR", leavesNothing},
	{"no value in logs, arguments, errors and state", plugins.RuntimeKind,
		"never print, pass as an argument, or keep outside the target what Env holds; take it out of errors of libraries too",
		noLeaks},
}
