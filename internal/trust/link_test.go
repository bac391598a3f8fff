package trust

import (
	"testing"

	"pgregory.net/rapid"
)

func TestLinkRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		l := Link{
			Broker: rapid.SampledFrom([]string{"ws", "wss"}).Draw(rt, "scheme") + "://" +
				rapid.StringMatching(`([a-z0-9-]{1,20}(\.[a-z]{2,8}){0,3}|\[::1\])(:[1-9][0-9]{1,3})?(/[a-zA-Z0-9_~<>&+é]{0,20}){0,3}`).Draw(rt, "host"),
			BrokerKey: SecretKeyFromSeed(draw32(rt, "broker")).Public(),
			Owner:     SecretKeyFromSeed(draw32(rt, "owner")).Public(),
			Secret:    draw32(rt, "secret"),
		}
		for _, s := range []string{l.String(), l.Web("https://mesh.example")} {
			if got, err := ParseLink(s); err != nil || got != l {
				rt.Fatalf("%s: %v", s, err)
			}
		}
	})
}

func draw32(rt *rapid.T, what string) [32]byte {
	return [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, what))
}

func TestSecretDerivations(t *testing.T) {
	t.Parallel()
	s := secret("open")
	all := [][32]byte{s, s.InviteKey().Seed(), s.BlobKey(), PreviousKey(s)}
	for i := range all {
		for j := range i {
			if all[i] == all[j] {
				t.Errorf("derivations %d and %d are the same", i, j)
			}
		}
	}
	first, second := NewSecret(), NewSecret()
	one, other := NewSecretKey().Seed(), NewSecretKey().Seed()
	if first == second || one == other {
		t.Error("two draws are the same")
	}
}
