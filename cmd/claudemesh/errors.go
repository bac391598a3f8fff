package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/backup"
	"github.com/claudemesh/claudemesh/internal/localbroker"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// The exit codes; docs/cli.md lists them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotJoined   = 3
	exitUnreachable = 4
	exitNotFound    = 5
	exitAmbiguous   = 6
	exitRefused     = 7
	exitInterrupted = 130
)

// failure is an error as it is shown.
type failure struct {
	code       string // for programs
	exit       int
	text       string // the cause, for people
	hint       string // what to do next
	candidates []client.Peer
	shown      bool // the result on stdout says it already
}

func (f *failure) Error() string { return f.text }

func (f *failure) hinted(hint string) *failure { f.hint = hint; return f }

func usagef(format string, args ...any) *failure {
	return &failure{code: "usage", exit: exitUsage, text: fmt.Sprintf(format, args...)}
}

const joinHint = "claudemesh up makes one on this machine, claudemesh new NAME founds one at a broker, claudemesh join LINK joins one"

var errNothingJoined = &failure{code: "not_joined", exit: exitNotJoined, text: "no mesh was joined here", hint: joinHint}

// rules maps errors to what is shown; the first that matches counts.
var rules = []struct {
	is   error
	code string
	exit int
	hint string
}{
	{profile.ErrNewer, "newer_version", exitFailed, "update claudemesh"},
	{profile.ErrJoined, "already_joined", exitFailed, "claudemesh list shows what was joined"},
	{profile.ErrNameTaken, "mesh_name_taken", exitFailed, "leave that mesh first, or keep this one in another --config-dir"},
	{profile.ErrMalformed, "malformed_config", exitFailed, "repair the file, or claudemesh restore FILE; it holds your keys, so do not delete it lightly"},
	{profile.ErrKeyring, "keyring", exitFailed, "unlock the keyring of your login and run it again; lost keys come back by claudemesh restore FILE"},
	{profile.ErrRunning, "running", exitRefused, "end the Claude Code sessions and other claudemesh programs of this directory first"},
	{profile.ErrLink, "link", exitRefused, "put the file in the place of the link"},
	{backup.ErrShort, "bad_passphrase", exitUsage, "a longer one, or --generate"},
	{backup.ErrPassphrase, "wrong_passphrase", exitRefused, "type it again; generated words are joined by -"},
	{backup.ErrFormat, "bad_backup", exitFailed, "check the name of the file, or take another backup"},
	{backup.ErrTooNew, "newer_version", exitFailed, "update claudemesh"},
	{profile.ErrNotJoined, "not_joined", exitNotJoined, joinHint},
	{mailbox.ErrNewer, "newer_version", exitFailed, "update claudemesh"},
	{mailbox.ErrCorrupt, "damaged_mailbox", exitFailed, "move the mailbox aside as said; joined meshes stay"},
	{client.ErrNoMesh, "not_joined", exitNotJoined, "claudemesh list shows the meshes"},
	{client.ErrSeveralMeshes, "several_meshes", exitUsage, "send it once for each mesh"},
	{client.ErrBadName, "bad_name", exitUsage, "choose another name, like alice or build-2"},
	{client.ErrForbidden, "forbidden", exitRefused, "ask an admin; claudemesh members shows who is one"},
	{client.ErrNotOwner, "forbidden", exitRefused, "claudemesh members shows who the owner is; it can be done on the founder's machine"},
	{localbroker.ErrNoProgram, "no_broker", exitFailed, "put it beside claudemesh; in a clone, make build makes both in bin/"},
	{localbroker.ErrNotReady, "not_ready", exitUnreachable, "claudemesh down, then claudemesh up"},
	{localbroker.ErrStays, "stays", exitFailed, "kill -9 that process; what the broker acknowledged is on disk"},
	{localbroker.ErrNoService, "no_service", exitFailed, "claudemesh up, after each boot"},
	{client.ErrNoMessage, "not_found", exitNotFound, "check the id"},
}

// faults maps a broker's codes; one that is not here is refused without a hint.
var faults = map[wire.Code]struct {
	exit int
	hint string
}{
	wire.CodeUnauthorized:    {exitRefused, "give the broker's admin token in CLAUDEMESH_TOKEN or by --token-file"},
	wire.CodeForbidden:       {exitRefused, "ask an admin; claudemesh members shows who is one"},
	wire.CodeNotFound:        {exitNotFound, "check the id or name"},
	wire.CodeInternal:        {exitFailed, "try again; the broker's log tells more"},
	wire.CodeShuttingDown:    {exitUnreachable, "try again in some seconds"},
	wire.CodeRateLimited:     {exitRefused, "try again in a minute"},
	wire.CodeStorageFull:     {exitRefused, "tell the broker's operator that its disk is full"},
	wire.CodeUnknownMesh:     {exitRefused, "the broker lost its database or is another one; ask its operator"},
	wire.CodeUnknownMember:   {exitRefused, "ask an admin for a new invite, then: claudemesh leave MESH --local"},
	wire.CodeRemoved:         {exitRefused, "ask an admin for a new invite, then: claudemesh leave MESH --local"},
	wire.CodeWrongOwner:      {exitRefused, "the broker is not to be trusted; ask the owner on another way before you go on"},
	wire.CodePaused:          {exitRefused, "wait, or ask an admin to run: claudemesh resume"},
	wire.CodeBlocked:         {exitRefused, "talk to the person on another way"},
	wire.CodeNotGranted:      {exitRefused, "ask the person to run: claudemesh grant with your name"},
	wire.CodeTooManyHops:     {exitRefused, "let a person write the next message"},
	wire.CodeMeshExists:      {exitRefused, "run the command again"},
	wire.CodeNameTaken:       {exitRefused, "choose another name with --as"},
	wire.CodeInviteUnknown:   {exitNotFound, "ask for a new link"},
	wire.CodeInviteExpired:   {exitRefused, "ask for a new link"},
	wire.CodeInviteUsedUp:    {exitRefused, "ask for a new link"},
	wire.CodeInviteClosed:    {exitRefused, "ask for a new link"},
	wire.CodeInviteOverused:  {exitRefused, "ask for a new link"},
	wire.CodeBadCertificate:  {exitRefused, "ask for a new link, and compare the fingerprint with the inviter"},
	wire.CodeWrongBroker:     {exitRefused, "ask the operator, on another way, for the broker's key; if it has changed: claudemesh verify --accept-broker"},
	wire.CodeRosterRollback:  {exitRefused, "ask the operator whether an old backup was restored"},
	wire.CodeRemovalWithheld: {exitRefused, "ask an admin; the broker is not to be trusted until it shows the removal"},
	wire.CodeTooLarge:        {exitRefused, "send less, or put it into a file that the other can read"},

	wire.CodeUnknownRecipient:   {exitNotFound, "claudemesh peers --all shows who is there"},
	wire.CodeUnsupportedVersion: {exitFailed, "update claudemesh, or the broker"},
}

// explain finds out what an error is to its user. What it quotes of others stays on one line.
func explain(err error) *failure {
	var f *failure
	var t *client.TargetError
	var l *client.LinkError
	var held *client.HeldError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &t):
		return explainTarget(t)
	case errors.As(err, &held):
		return &failure{
			code: "held", exit: exitRefused, text: "not sent: " + render.Line(held.Reason),
			hint: fmt.Sprintf("look at it with claudemesh held; claudemesh held send %d sends it all the same", held.Number),
		}
	case errors.As(err, &l):
		return &failure{code: "bad_link", exit: exitUsage, text: render.Line(l.Error()), hint: "ask for the link again and copy it whole"}
	}
	for _, r := range rules {
		if errors.Is(err, r.is) {
			return &failure{code: r.code, exit: r.exit, text: render.Line(err.Error()), hint: r.hint}
		}
	}
	if f := explainFault(err); f != nil {
		return f
	}
	switch {
	case errors.Is(err, client.ErrUnreachable):
		return &failure{
			code: "unreachable", exit: exitUnreachable, text: render.Line(unreachableText(err)),
			hint: "check the address and the network, and that claudemesh-broker runs there; claudemesh up starts the local one",
		}
	case errors.Is(err, context.Canceled):
		return &failure{code: "interrupted", exit: exitInterrupted, text: "interrupted"}
	}
	return &failure{code: "failed", exit: exitFailed, text: render.Line(err.Error()), hint: chmodHint(err.Error())}
}

// unreachableText names the network's own error alone, without the layers it came through.
func unreachableText(err error) string {
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return client.ErrUnreachable.Error() + ": " + dns.Error()
	case errors.As(err, &op):
		return client.ErrUnreachable.Error() + ": " + op.Error()
	}
	return err.Error()
}

// explainFault is explain for what a broker or a peer's proof refuses; nil for
// other errors, and for a passing fault on the way to an unreachable broker.
func explainFault(err error) *failure {
	var fault *client.Fault
	var removed *client.RemovedError
	code, text := wire.Code(""), ""
	if errors.As(err, &removed) {
		code, text = wire.CodeRemoved, removed.Error()
	} else if errors.As(err, &fault) {
		code, text = fault.Code, fault.Error()
	} else if info := wire.CloseCode(websocket.CloseStatus(err)).Info(); info.Code != "" {
		code, text = info.Code, info.Code.Info().Text
	}
	if code == "" || (code.Info().Retryable && errors.Is(err, client.ErrUnreachable)) {
		return nil
	}
	e, ok := faults[code]
	if !ok {
		e.exit = exitRefused
	}
	return &failure{code: string(code), exit: e.exit, text: render.Line(text), hint: e.hint}
}

func explainTarget(t *client.TargetError) *failure {
	f := &failure{code: string(t.Reason), text: t.Error(), candidates: t.Candidates}
	switch t.Reason {
	case client.ReasonNotFound:
		f.exit, f.hint = exitNotFound, "claudemesh peers --all shows who is there"
		if len(t.Candidates) > 0 {
			f.hint = "one of these"
		}
	case client.ReasonAmbiguous:
		f.exit, f.hint = exitAmbiguous, "use one of these keys"
	case client.ReasonEmpty:
		f.exit, f.hint = exitNotFound, "claudemesh peers --all shows who is in which group"
	case client.ReasonSelf:
		f.exit, f.hint = exitRefused, "name someone else; claudemesh peers shows who is there"
	default:
		f.code, f.exit, f.hint = "usage", exitUsage, "a target is member/label, member, label, @group, * or 8 to 64 hex digits of a key"
	}
	return f
}

// chmodHint lifts the command out of the sentence that refuses a mode.
func chmodHint(text string) string {
	if _, cmd, ok := strings.Cut(text, "run: chmod "); ok {
		return "chmod " + cmd
	}
	return ""
}

// finish shows an error and returns the exit code.
func (a *app) finish(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	f := explain(err)
	if ctx.Err() != nil && f.exit != exitUsage {
		f = &failure{code: "interrupted", exit: exitInterrupted, text: "interrupted"}
	}
	switch {
	case f.shown:
	case a.json || slices.Contains(a.args, "--json"):
		a.printJSON(struct {
			OK         bool        `json:"ok"`
			Code       string      `json:"code"`
			Message    string      `json:"message"`
			Hint       string      `json:"hint"`
			Candidates []candidate `json:"candidates"`
		}{false, f.code, f.text, f.hint, candidatesOf(f.candidates)})
	default:
		a.showFailure(f)
	}
	return f.exit
}
