package trust

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// linkPrefix opens the default form of an invite link.
const linkPrefix = "ic://join/"

// maxLink bounds a link in bytes.
const maxLink = 4096

// Secret is the 32 random bytes of an invite link, from which its keys follow.
type Secret [32]byte

// NewSecret draws one.
func NewSecret() (s Secret) {
	rand.Read(s[:]) // crypto/rand.Read never fails
	return s
}

// Format hides the secret from every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[redacted]")) }

func (s Secret) derive(info string) [32]byte {
	k, err := hkdf.Key(sha256.New, s[:], nil, domain+info, 32)
	if err != nil {
		panic(err) // only for impossible lengths
	}
	return [32]byte(k)
}

// InviteKey is the key that signs joins.
func (s Secret) InviteKey() SecretKey { return SecretKeyFromSeed(s.derive("invite-key")) }

// BlobKey seals the mesh key that the broker keeps for the joining member.
func (s Secret) BlobKey() [32]byte { return s.derive("invite-mesh-key") }

// PreviousKey derives, from a mesh key, the key that seals the one before it.
func PreviousKey(meshKey [32]byte) [32]byte { return Secret(meshKey).derive("prev") }

// Link is a parsed invite link.
type Link struct {
	Broker    string // ws:// or wss:// URL of the broker's socket
	BrokerKey wire.Key
	Owner     wire.Key
	Secret    Secret
}

// String returns the ic:// form.
func (l Link) String() string { return linkPrefix + l.payload() }

// Web returns the https form for the broker at base ("https://host").
func (l Link) Web(base string) string {
	return strings.TrimSuffix(base, "/") + "/i/" + InviteID(l.Secret.InviteKey().Public()).String() + "#" + l.payload()
}

func (l Link) payload() string {
	b, err := wire.Marshal(wire.Link{V: wire.Version, Broker: l.Broker, BrokerKey: l.BrokerKey, Owner: l.Owner, Secret: l.Secret[:]})
	if err != nil {
		panic(err) // no field can fail
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseLink reads either form of an invite link. Its errors are sentences for people.
func ParseLink(s string) (Link, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxLink {
		return Link{}, errors.New("the invite link is too long to be one")
	}
	payload, ok := strings.CutPrefix(s, linkPrefix)
	if !ok {
		u, err := url.Parse(s)
		if err != nil || (u.Scheme != "https" && u.Scheme != "http") || !strings.HasPrefix(u.Path, "/i/") {
			return Link{}, errors.New("an invite link starts with ic://join/ or https://HOST/i/")
		}
		if payload = u.Fragment; payload == "" {
			return Link{}, errors.New("the invite link has lost the part after #; ask for it again")
		}
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(payload)
	if err != nil {
		return Link{}, errors.New("the invite link is damaged (not base64url); copy it whole")
	}
	var w wire.Link
	if err := wire.Unmarshal(raw, &w); err != nil {
		return Link{}, errors.New("the invite link is damaged (not a link record); copy it whole")
	}
	return checkLink(w)
}

func checkLink(w wire.Link) (Link, error) {
	if w.V != wire.Version {
		return Link{}, errors.New("the invite link is of another version; update claudemesh")
	}
	if len(w.Secret) != 32 || CheckKey(w.Owner) != nil || CheckKey(w.BrokerKey) != nil {
		return Link{}, errors.New("the invite link is damaged (bad key); ask for it again")
	}
	u, err := url.Parse(w.Broker)
	if err != nil || (u.Scheme != "ws" && u.Scheme != "wss") || u.Hostname() == "" || u.User != nil {
		return Link{}, errors.New("the invite link names no ws:// or wss:// broker")
	}
	return Link{Broker: w.Broker, BrokerKey: w.BrokerKey, Owner: w.Owner, Secret: Secret(w.Secret)}, nil
}
