package profile

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/zalando/go-keyring"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// service is the name of our entries in the keyring.
const service = "claudemesh"

// Marker stands in config.json in the place of secrets that are in the keyring of
// the operating system.
type Marker struct {
	Account string   `json:"account"`         // of the entry there
	Member  wire.Key `json:"member"`          // the public half of what it holds
	Owner   bool     `json:"owner,omitempty"` // it holds the owner key too
}

// secrets is the content of an entry of the keyring: in hex, the owner's after a space.
type secrets struct{ member, owner client.Secret }

func (s secrets) String() string { return "[redacted]" }

func (s secrets) text() string {
	text := hex.EncodeToString(s.member[:])
	if !s.owner.IsZero() {
		text += " " + hex.EncodeToString(s.owner[:])
	}
	return text
}

func parseSecrets(text string) (s secrets, err error) {
	member, owner, both := strings.Cut(text, " ")
	if err = s.member.UnmarshalText([]byte(member)); err == nil && both {
		err = s.owner.UnmarshalText([]byte(owner))
	}
	return s, err
}

// lacksKey reports whether an entry has no member key, or two.
func (e *Entry) lacksKey() bool {
	if e.Keyring == nil {
		return e.MemberSeed.IsZero()
	}
	return e.Keyring.Account == "" || e.Keyring.Member.IsZero() || !e.MemberSeed.IsZero() || !e.OwnerSeed.IsZero()
}

// reveal completes an entry by what the keyring holds. ErrKeyring.
func (p *Profile) reveal(e *Entry) error {
	if e.Keyring == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.revealed[e.Keyring.Account]
	if !ok {
		text, err := keyring.Get(service, e.Keyring.Account)
		if err != nil {
			return fmt.Errorf("%w: the keys of %s are in it: %w", ErrKeyring, e.Mesh, err)
		}
		if s, err = parseSecrets(text); err != nil || !e.fits(s) {
			return fmt.Errorf("%w: its entry %s does not hold the keys of %s", ErrKeyring, e.Keyring.Account, e.Mesh)
		}
		if p.revealed == nil {
			p.revealed = map[string]secrets{}
		}
		p.revealed[e.Keyring.Account] = s
	}
	e.MemberSeed, e.OwnerSeed = s.member, s.owner
	return nil
}

// fits reports whether these are the secrets of an entry's public keys.
func (e *Entry) fits(s secrets) bool {
	public := func(seed client.Secret) wire.Key { return trust.SecretKeyFromSeed(seed).Public() }
	return public(s.member) == e.Keyring.Member && s.owner.IsZero() == !e.Keyring.Owner &&
		(s.owner.IsZero() || public(s.owner) == e.Owner)
}

// AddToKeyring is Add that keeps the member's and the owner's secret in the
// keyring. ErrKeyring.
func (p *Profile) AddToKeyring(m client.Membership) error {
	e, err := hide(m)
	if err != nil {
		return err
	}
	if err := p.add(e); err != nil {
		return errors.Join(err, e.Keyring.forget())
	}
	return nil
}

// hide moves the secrets of a membership into the keyring. The account is drawn:
// another profile of this user has its own.
func hide(m client.Membership) (Entry, error) {
	e := Entry{Membership: m, Keyring: &Marker{
		Account: m.Member + "@" + m.Mesh + "/" + strings.ToLower(rand.Text()[:12]), Member: m.MemberKey(), Owner: !m.OwnerSeed.IsZero(),
	}}
	if err := keyring.Set(service, e.Keyring.Account, secrets{m.MemberSeed, m.OwnerSeed}.text()); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrKeyring, err)
	}
	e.MemberSeed, e.OwnerSeed = client.Secret{}, client.Secret{}
	return e, nil
}

// forget deletes the entry of the keyring.
func (m *Marker) forget() error {
	if err := keyring.Delete(service, m.Account); err != nil && !errors.Is(err, keyring.ErrNotFound) {
		return fmt.Errorf("%w: delete the entry %s of %s there by hand: %w", ErrKeyring, m.Account, service, err)
	}
	return nil
}

// CheckKeyring puts an entry into the keyring, reads it and deletes it: to be done
// before what cannot be done twice. ErrKeyring.
func CheckKeyring() error {
	m, want := Marker{Account: "check/" + strings.ToLower(rand.Text()[:12])}, rand.Text()
	if err := keyring.Set(service, m.Account, want); err != nil {
		return fmt.Errorf("%w: %w", ErrKeyring, err)
	}
	got, err := keyring.Get(service, m.Account)
	if err == nil && got != want {
		err = errors.New("it gives back something else")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrKeyring, err), m.forget())
	}
	return m.forget()
}
