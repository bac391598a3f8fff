package client

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// Set is the clients of the meshes that were joined. A target may name its
// mesh, "mesh:target"; otherwise the one mesh where it resolves is taken.
type Set []*Client

// ErrNoMesh says that no mesh of a name was joined.
var ErrNoMesh = errors.New("no mesh of that name was joined here")

// ErrSeveralMeshes says that the targets of one message name several meshes.
var ErrSeveralMeshes = errors.New("one message goes to one mesh; send it once for each")

// Named returns the client of a mesh, or all for "".
func (s Set) Named(mesh string) (Set, error) {
	if mesh == "" {
		return s, nil
	}
	i := slices.IndexFunc(s, func(c *Client) bool { return c.Mesh() == mesh })
	if i < 0 {
		return nil, ErrNoMesh
	}
	return s[i : i+1], nil
}

// Send finds the mesh that a message is for and sends it there.
func (s Set) Send(ctx context.Context, m Message) (*Sent, error) {
	if len(s) == 0 {
		return nil, ErrNoMesh
	}
	set, m, err := s.strip(m)
	if err != nil {
		return nil, err
	}
	if len(set) == 1 {
		return set[0].Send(ctx, m)
	}
	c, err := set.fitting(ctx, m.To)
	if err != nil {
		return nil, err
	}
	return c.Send(ctx, m)
}

// strip takes the mesh names off the targets.
func (s Set) strip(m Message) (Set, Message, error) {
	m.To = slices.Clone(m.To)
	named := ""
	for i, t := range m.To {
		mesh, rest, ok := strings.Cut(t, ":")
		if !ok {
			continue
		}
		if named != "" && named != mesh {
			return nil, m, ErrSeveralMeshes
		}
		named, m.To[i] = mesh, rest
	}
	set, err := s.Named(named)
	return set, m, err
}

// fitting returns the one mesh where every target resolves.
func (s Set) fitting(ctx context.Context, targets []string) (*Client, error) {
	var fits Set
	var misfits []error
	var candidates []Peer
	for _, c := range s {
		to, _, err := c.Resolve(ctx, targets)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(to, func(t SentTarget) bool { return t.Err != nil })
		if i < 0 {
			fits = append(fits, c)
			for _, t := range to {
				candidates = append(candidates, Peer{Mesh: c.Mesh(), Key: t.Key, Name: t.Target})
			}
			continue
		}
		misfits = append(misfits, to[i].Err)
	}
	switch {
	case len(fits) == 1:
		return fits[0], nil
	case len(fits) > 1:
		return nil, &TargetError{Target: strings.Join(targets, ","), Reason: ReasonAmbiguous, Candidates: candidates}
	}
	return nil, bestMisfit(misfits)
}

// bestMisfit prefers an error that found something over one that did not, and
// merges the nearest names of all meshes.
func bestMisfit(errs []error) error {
	var out *TargetError
	for _, err := range errs {
		var t *TargetError
		switch {
		case !errors.As(err, &t):
			return err
		case t.Reason != ReasonNotFound && t.Reason != ReasonEmpty:
			return t
		case out == nil:
			out = t
		default:
			out.Candidates = append(out.Candidates, t.Candidates...)
		}
	}
	return out
}

// Status returns what is known of a message that was sent from this machine.
func (s Set) Status(ctx context.Context, id ID) (*Sent, time.Time, error) {
	for _, c := range s {
		sent, at, err := c.Status(ctx, id)
		if !errors.Is(err, ErrNoMessage) {
			return sent, at, err
		}
	}
	return nil, time.Time{}, ErrNoMessage
}

// Close closes every client.
func (s Set) Close() {
	for _, c := range s {
		_ = c.Close()
	}
}
