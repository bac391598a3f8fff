// Package backup seals files with a passphrase. A backup is a header of 58 bytes
//
//	"CMBACKUP", version (1), t (4), m in KiB (4), p (1), salt (16), nonce (24)
//
// with numbers in big-endian order, and an archive under XChaCha20-Poly1305. The
// key is Argon2id of the passphrase with t, m, p and the salt; the header is
// authenticated with the archive. The package is pure: it opens no files.
package backup

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// Errors of Open and Seal.
var (
	// ErrPassphrase: the passphrase is wrong, or any byte after the parameters was
	// altered. The two cannot be told apart: only the right key knows the right tag.
	ErrPassphrase = errors.New("the passphrase is wrong, or the backup was altered")
	ErrFormat     = errors.New("it is no backup of claudemesh, or it is damaged")
	ErrTooNew     = errors.New("the backup was written by a newer claudemesh")
	ErrShort      = fmt.Errorf("a passphrase has at least %d characters", MinPassphrase)
)

// Limits of a backup.
const (
	MinPassphrase = 12       // characters
	MaxFile       = 64 << 20 // bytes, sealed

	maxTime    = 8
	maxMemory  = 512 << 10 // KiB: what Open will take, whatever a file asks for
	maxThreads = 8
)

const (
	magic      = "CMBACKUP"
	version    = 1
	saltSize   = 16
	headerSize = len(magic) + 1 + 4 + 4 + 1 + saltSize + chacha20poly1305.NonceSizeX
)

// Params is the cost of deriving a key by Argon2id.
type Params struct {
	Time    uint32 // passes
	Memory  uint32 // KiB
	Threads uint8
}

// The costs that people choose from.
var (
	Standard  = Params{Time: 3, Memory: 256 << 10, Threads: 4}
	LowMemory = Params{Time: 3, Memory: 64 << 10, Threads: 4}
)

// check refuses parameters that Argon2id cannot take, or that would take too much of this machine.
func (p Params) check() error {
	if p.Time < 1 || p.Time > maxTime || p.Threads < 1 || p.Threads > maxThreads ||
		p.Memory < 8*uint32(p.Threads) || p.Memory > maxMemory {
		return fmt.Errorf("%w: it asks for %d passes over %d KiB by %d threads", ErrFormat, p.Time, p.Memory, p.Threads)
	}
	return nil
}

func (p Params) key(passphrase string, salt []byte) []byte {
	return argon2.IDKey([]byte(passphrase), salt, p.Time, p.Memory, p.Threads, chacha20poly1305.KeySize)
}

// CheckPassphrase refuses a short one. ErrShort.
func CheckPassphrase(passphrase string) error {
	if utf8.RuneCountInString(passphrase) < MinPassphrase {
		return ErrShort
	}
	return nil
}

// Seal makes the backup of an archive. ErrShort; an archive that Open would not read is refused.
func Seal(a Archive, passphrase string, p Params) ([]byte, error) {
	if err := CheckPassphrase(passphrase); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	plain, err := a.encode()
	if err != nil {
		return nil, err
	}
	if size := headerSize + len(plain) + chacha20poly1305.Overhead; size > MaxFile {
		return nil, fmt.Errorf("the backup would have %d MiB; at most %d", size>>20, MaxFile>>20)
	}
	random := make([]byte, saltSize+chacha20poly1305.NonceSizeX)
	_, _ = rand.Read(random) // never fails
	header := append([]byte(magic), version)
	header = binary.BigEndian.AppendUint32(header, p.Time)
	header = binary.BigEndian.AppendUint32(header, p.Memory)
	header = append(append(header, p.Threads), random...)
	aead, err := chacha20poly1305.NewX(p.key(passphrase, random[:saltSize]))
	if err != nil {
		return nil, err
	}
	return aead.Seal(header, random[saltSize:], plain, header), nil
}

// Open reads a backup. It refuses one that would take too much memory or time
// before it takes any. ErrFormat, ErrTooNew, ErrPassphrase.
func Open(file []byte, passphrase string) (Archive, error) {
	p, err := parseHeader(file)
	if err != nil {
		return Archive{}, err
	}
	header, random := file[:headerSize], file[headerSize-saltSize-chacha20poly1305.NonceSizeX:headerSize]
	aead, err := chacha20poly1305.NewX(p.key(passphrase, random[:saltSize]))
	if err != nil {
		return Archive{}, err
	}
	plain, err := aead.Open(nil, random[saltSize:], file[headerSize:], header)
	if err != nil {
		return Archive{}, ErrPassphrase
	}
	return decode(plain)
}

// parseHeader reads what is not secret of a backup, within its limits.
func parseHeader(file []byte) (Params, error) {
	switch {
	case !bytes.HasPrefix(file, []byte(magic)):
		return Params{}, ErrFormat
	case len(file) > len(magic) && file[len(magic)] > version:
		return Params{}, fmt.Errorf("%w (version %d, this one knows %d)", ErrTooNew, file[len(magic)], version)
	case len(file) < headerSize+chacha20poly1305.Overhead:
		return Params{}, fmt.Errorf("%w: it is cut short", ErrFormat)
	case len(file) > MaxFile:
		return Params{}, fmt.Errorf("%w: it is larger than %d MiB", ErrFormat, MaxFile>>20)
	case file[len(magic)] != version:
		return Params{}, ErrFormat
	}
	at := file[len(magic)+1:]
	p := Params{Time: binary.BigEndian.Uint32(at), Memory: binary.BigEndian.Uint32(at[4:]), Threads: at[8]}
	return p, p.check()
}
