package plugins

import "fmt"

// Held is what a target has, as its runtime remembers it: the newest generation that it accepted, with its digest, and
// the highest fence that it has seen. The zero value is a target that has nothing of ours.
type Held struct {
	Generation int64
	Fence      int64
	Digest     string
}

// Admit holds a push against what its target has; every runtime calls it before it changes anything, while nobody else
// can change the target. It is the contract's rule (pluginpb, Runtime.PushEnv):
//
//   - An older generation or an older fence is [ErrStale]: a server that was thought dead, or a delivery that was
//     overtaken.
//   - The same generation with another digest is [ErrDigestConflict]: two servers count alike, and nobody can say whose
//     wish is the newer one.
//   - The same generation with the same digest is nil. The target may have it already; then the runtime answers with
//     the target's status, and otherwise it puts the target right.
//   - Anything newer is nil. The runtime takes it, and remembers its generation, fence and digest with the target.
//
// Return its error as it is: [ServeRuntime] knows which code it is.
func Admit(has Held, req PushRequest) error {
	if err := admitOrder(has, req.Generation, req.Fence); err != nil {
		return err
	}
	if req.Generation == has.Generation && req.Digest != has.Digest {
		return fmt.Errorf("%w: generation %d", ErrDigestConflict, req.Generation)
	}
	return nil
}

// AdmitRemoval is [Admit] for removals, which have no digest. A target that has nothing of ours admits every removal.
func AdmitRemoval(has Held, req RemoveRequest) error {
	return admitOrder(has, req.Generation, req.Fence)
}

func admitOrder(has Held, generation, fence int64) error {
	switch {
	case fence < has.Fence:
		return fmt.Errorf("%w: fence %d was sent, the target has %d", ErrStale, fence, has.Fence)
	case generation < has.Generation:
		return fmt.Errorf("%w: generation %d was sent, the target has %d", ErrStale, generation, has.Generation)
	}
	return nil
}
