package wire

import (
	"maps"
	"slices"
)

// Code is a machine-readable refusal or fault. Codes are enums: free text
// never travels in their place.
type Code string

// Every code, with what it means to a program in the table below.
const (
	CodeBadFrame           Code = "bad_frame"
	CodeUnknownType        Code = "unknown_type"
	CodeTooLarge           Code = "too_large"
	CodeUnsupportedVersion Code = "unsupported_version"
	CodeUnauthorized       Code = "unauthorized"
	CodeForbidden          Code = "forbidden"
	CodeNotFound           Code = "not_found"
	CodeInternal           Code = "internal"
	CodeShuttingDown       Code = "shutting_down"
	CodeRateLimited        Code = "rate_limited"
	CodeStorageFull        Code = "storage_full"

	CodeBadSignature   Code = "bad_signature"
	CodeBadCertificate Code = "bad_certificate"
	CodeBadCard        Code = "bad_card"
	CodeUnknownMesh    Code = "unknown_mesh"
	CodeUnknownMember  Code = "unknown_member"
	CodeRemoved        Code = "removed"
	CodeMeshExists     Code = "mesh_exists"
	CodeNameTaken      Code = "name_taken"
	CodeMemberConflict Code = "member_conflict"
	CodeStaleMembers   Code = "stale_members"

	CodeInviteUnknown  Code = "invite_unknown"
	CodeInviteExpired  Code = "invite_expired"
	CodeInviteUsedUp   Code = "invite_used_up"
	CodeInviteClosed   Code = "invite_closed"
	CodeInviteOverused Code = "invite_overused"
	CodeWrongInvite    Code = "wrong_invite"

	CodeUnknownRecipient Code = "unknown_recipient"
	CodeAudienceTooLarge Code = "audience_too_large"
	CodeQueueFull        Code = "queue_full"
	CodeMeshFull         Code = "mesh_full"
	CodeIDReused         Code = "id_reused"
	CodeExpired          Code = "expired"
	CodeSessionGone      Code = "session_gone"
	CodeUndeliverable    Code = "undeliverable"

	CodeBadBox          Code = "bad_box"
	CodeBodyHash        Code = "body_hash"
	CodeBadAttestation  Code = "bad_attestation"
	CodeHeaderMismatch  Code = "header_mismatch"
	CodeWrongMesh       Code = "wrong_mesh"
	CodeWrongRecipient  Code = "wrong_recipient"
	CodeBadEnvelope     Code = "bad_envelope"
	CodeBadPadding      Code = "bad_padding"
	CodeBadLifetime     Code = "bad_lifetime"
	CodeReplayed        Code = "replayed"
	CodeReflected       Code = "reflected"
	CodeUnknownSender   Code = "unknown_sender"
	CodeRemovalWithheld Code = "removal_withheld"
	CodeGenerationFork  Code = "generation_fork"
	CodeRosterRollback  Code = "roster_rollback"
	CodeWrongBroker     Code = "wrong_broker"
	CodeWrongOwner      Code = "wrong_owner"
	CodeTooManyHops     Code = "too_many_hops"
	CodeBadReceipt      Code = "bad_receipt"
	CodeBadAck          Code = "bad_ack"
	CodeStaleKey        Code = "stale_key"
	CodeKeyWithheld     Code = "key_withheld"
	CodeMembersWithheld Code = "members_withheld"

	CodePaused     Code = "paused"
	CodeKicked     Code = "kicked"
	CodeBlocked    Code = "blocked"
	CodeNotGranted Code = "not_granted"
)

// CodeInfo says how programs and people treat a code.
type CodeInfo struct {
	Retryable bool   // the same request may succeed later
	HTTP      int    // status of an HTTP answer with this code
	Text      string // a sentence for people
}

// codes is the one table of codes; a test holds it against the constants.
var codes = map[Code]CodeInfo{
	CodeBadFrame:           {false, 400, "the request is malformed"},
	CodeUnknownType:        {false, 400, "this frame type is unknown"},
	CodeTooLarge:           {false, 413, "the request is larger than the limit"},
	CodeUnsupportedVersion: {false, 400, "this protocol version is not spoken here"},
	CodeUnauthorized:       {false, 401, "the token is missing or wrong"},
	CodeForbidden:          {false, 403, "this member may not do that"},
	CodeNotFound:           {false, 404, "there is no such thing"},
	CodeInternal:           {true, 500, "the broker failed to handle the request"},
	CodeShuttingDown:       {true, 503, "the broker is restarting"},
	CodeRateLimited:        {true, 429, "too many requests; slow down"},
	CodeStorageFull:        {true, 507, "the broker's disk is full"},

	CodeBadSignature:   {false, 400, "a signature does not verify"},
	CodeBadCertificate: {false, 400, "a certificate does not verify"},
	CodeBadCard:        {false, 400, "the presence card does not verify"},
	CodeUnknownMesh:    {false, 404, "the broker does not know this mesh"},
	CodeUnknownMember:  {false, 403, "the broker does not know this member"},
	CodeRemoved:        {false, 403, "removed from the mesh"},
	CodeMeshExists:     {false, 409, "this mesh is already registered"},
	CodeNameTaken:      {false, 409, "a member of this mesh already has that name"},
	CodeMemberConflict: {false, 409, "this member key is already registered otherwise"},
	CodeStaleMembers:   {true, 409, "the membership changed meanwhile; read it again and retry"},

	CodeInviteUnknown:  {false, 404, "the broker does not know this invite"},
	CodeInviteExpired:  {false, 410, "this invite has expired"},
	CodeInviteUsedUp:   {false, 410, "this invite is used up"},
	CodeInviteClosed:   {false, 410, "this invite was revoked"},
	CodeInviteOverused: {false, 410, "more members came by this invite than it allows"},
	CodeWrongInvite:    {false, 403, "the broker shows another invite than the link's"},

	CodeUnknownRecipient: {false, 404, "the broker does not know this recipient"},
	CodeAudienceTooLarge: {false, 413, "the message has too many recipients"},
	CodeQueueFull:        {true, 429, "the recipient's queue is full"},
	CodeMeshFull:         {true, 429, "the mesh's queue is full"},
	CodeIDReused:         {false, 409, "this message id was used for another message"},
	CodeExpired:          {false, 410, "the message expired before it was delivered"},
	CodeSessionGone:      {false, 410, "the recipient was not seen for 30 days"},
	CodeUndeliverable:    {false, 410, "the recipient did not take the message in ten attempts"},

	CodeBadBox:          {false, 400, "the message does not open with the sender's key"},
	CodeBodyHash:        {false, 400, "the body is not the one the sender wrapped"},
	CodeBadAttestation:  {false, 400, "the sender's session is not vouched for by its member"},
	CodeHeaderMismatch:  {false, 400, "the sealed header differs from the frame"},
	CodeWrongMesh:       {false, 400, "the message was sealed for another mesh"},
	CodeWrongRecipient:  {false, 400, "the message was sealed for another recipient"},
	CodeBadEnvelope:     {false, 400, "the sealed content is malformed"},
	CodeBadPadding:      {false, 400, "the padding is not zero"},
	CodeBadLifetime:     {false, 400, "the message claims an impossible lifetime"},
	CodeReplayed:        {false, 409, "the message was delivered before"},
	CodeReflected:       {false, 409, "the message is one's own"},
	CodeUnknownSender:   {false, 403, "the sender is not a member"},
	CodeRemovalWithheld: {false, 409, "the broker withholds a removal that the sender knows of"},
	CodeGenerationFork:  {false, 409, "two mesh keys claim one generation"},
	CodeRosterRollback:  {false, 409, "the broker shows an older membership than it showed before"},
	CodeWrongBroker:     {false, 403, "the broker is not the one this mesh was joined at"},
	CodeWrongOwner:      {false, 403, "the broker shows another owner for this mesh"},
	CodeTooManyHops:     {false, 409, "too many agents have answered each other without a person"},
	CodeBadReceipt:      {false, 400, "a read receipt speaks for another's message"},
	CodeBadAck:          {false, 400, "the broker acknowledges another message than was sent"},
	CodeStaleKey:        {false, 409, "the broker offers an old mesh key as a new one"},
	CodeKeyWithheld:     {false, 409, "the broker shows a removal and not the mesh key that came with it"},
	CodeMembersWithheld: {false, 409, "the broker names a newer membership than it shows"},

	CodePaused:     {true, 409, "an admin has paused the mesh"},
	CodeKicked:     {true, 503, "an admin closed the connection"},
	CodeBlocked:    {false, 403, "the recipient has blocked the sender"},
	CodeNotGranted: {false, 403, "the recipient does not take such messages from the sender"},
}

// Codes returns every code of the table, sorted.
func Codes() []Code { return slices.Sorted(maps.Keys(codes)) }

// Info returns the table's entry; an unknown code is neither retryable nor explained.
func (c Code) Info() CodeInfo {
	if i, ok := codes[c]; ok {
		return i
	}
	return CodeInfo{HTTP: 500, Text: "an unknown fault: " + string(c)}
}

// Known reports whether the code stands in the table.
func (c Code) Known() bool { _, ok := codes[c]; return ok }

// Fault is a code as a Go error: what a broker answers and a client returns.
type Fault struct {
	Code         Code
	Detail       string // what exactly, for people; may be empty
	RetryAfterMs int64
}

func (f *Fault) Error() string {
	if f.Detail == "" {
		return f.Code.Info().Text
	}
	return f.Code.Info().Text + ": " + f.Detail
}

// Is reports whether target is a Fault of the same code.
func (f *Fault) Is(target error) bool {
	t, ok := target.(*Fault)
	return ok && t.Code == f.Code
}

// Faultf makes a Fault with a detail.
func Faultf(c Code, detail string) *Fault { return &Fault{Code: c, Detail: detail} }

// Frame returns the error frame that answers request req.
func (f *Fault) Frame(req string) *Error {
	return &Error{
		Req: Req{req}, Code: f.Code, Message: f.Error(),
		Retryable: f.Code.Info().Retryable, RetryAfterMs: f.RetryAfterMs,
	}
}

// CloseCode ends a WebSocket.
type CloseCode int

// Every application close code. A client never retries a terminal one.
const (
	CloseBadHello    CloseCode = 4400 // malformed or unsigned hello
	CloseUnknown     CloseCode = 4401 // mesh or member unknown
	CloseRemoved     CloseCode = 4403 // the member was removed
	CloseSlow        CloseCode = 4408 // did not read, did not answer pings, or sent no hello in time
	CloseReplaced    CloseCode = 4409 // another connection has this session key
	CloseKicked      CloseCode = 4410 // an admin closed the connection; the member stays
	CloseVersion     CloseCode = 4426 // protocol version not spoken
	CloseGoingAway   CloseCode = 1001 // the broker stops
	CloseFrameTooBig CloseCode = 1009 // a message over the limit
)

// CloseInfo says how a client treats a close code. Reason is constant and
// shorter than a close frame's limit.
type CloseInfo struct {
	Terminal bool
	Reason   string
	Code     Code
}

var closes = map[CloseCode]CloseInfo{
	CloseBadHello:    {true, "bad hello", CodeBadSignature},
	CloseUnknown:     {true, "unknown mesh or member", CodeUnknownMember},
	CloseRemoved:     {true, "removed from the mesh", CodeRemoved},
	CloseSlow:        {false, "too slow", CodeInternal},
	CloseReplaced:    {true, "another process took this session", CodeForbidden},
	CloseKicked:      {false, "kicked by an admin", CodeKicked},
	CloseVersion:     {true, "protocol version not spoken", CodeUnsupportedVersion},
	CloseGoingAway:   {false, "going away", CodeShuttingDown},
	CloseFrameTooBig: {false, "message too big", CodeTooLarge},
}

// Info returns the table's entry; a code that is not in it may be retried.
func (c CloseCode) Info() CloseInfo { return closes[c] }
