package wire

// Type names a frame.
type Type string

// Every frame, with its direction: c>b client to broker, b>c broker to client.
const (
	TypeChallenge      Type = "challenge"       // b>c opens every connection
	TypeHello          Type = "hello"           // c>b the only frame of an unauthenticated socket
	TypeHelloAck       Type = "hello_ack"       // b>c
	TypeSend           Type = "send"            // c>b
	TypeAck            Type = "ack"             // b>c answers send, after the commit
	TypePush           Type = "push"            // b>c one delivery
	TypeClientAck      Type = "client_ack"      // c>b deliveries that are on the recipient's disk
	TypeClientNack     Type = "client_nack"     // c>b a delivery that was refused
	TypeReceipt        Type = "receipt"         // b>c what became of a message one sent
	TypeMessageStatus  Type = "message_status"  // c>b
	TypeStatusList     Type = "status_list"     // b>c answers message_status
	TypeListPeers      Type = "list_peers"      // c>b
	TypePeersList      Type = "peers_list"      // b>c
	TypePresence       Type = "presence"        // b>c
	TypeSetCard        Type = "set_card"        // c>b
	TypeMembers        Type = "members"         // c>b
	TypeMembersList    Type = "members_list"    // b>c
	TypeMembersChanged Type = "members_changed" // b>c
	TypeInvitePut      Type = "invite_put"      // c>b
	TypeInviteList     Type = "invite_list"     // c>b
	TypeInvites        Type = "invites"         // b>c answers invite_list
	TypeInviteClose    Type = "invite_close"    // c>b
	TypeRemove         Type = "remove"          // c>b
	TypeSetRole        Type = "set_role"        // c>b
	TypePause          Type = "pause"           // c>b
	TypeKick           Type = "kick"            // c>b
	TypeBlock          Type = "block"           // c>b
	TypeSpread         Type = "spread"          // b>c over how long to spread reconnecting
	TypeOK             Type = "ok"              // b>c answers a request that has nothing else to say
	TypeError          Type = "error"           // b>c
)

// Frame is one decoded frame: a pointer to one of the structs below.
type Frame interface{ Type() Type }

// Req holds the id that a request carries and that its reply or error echoes.
type Req struct {
	ReqID string `json:"_reqId,omitzero"`
}

// RequestID returns the echo id, "" when there is none.
func (r *Req) RequestID() string { return r.ReqID }

// SetRequestID sets the echo id.
func (r *Req) SetRequestID(id string) { r.ReqID = id }

// Request is a frame that carries a request id.
type Request interface {
	Frame
	RequestID() string
	SetRequestID(id string)
}

// Challenge opens a connection. Sig is the broker key's over T("challenge", nonce).
type Challenge struct {
	V            int     `json:"v"`
	Nonce        Nonce32 `json:"nonce"`
	BrokerPubkey Key     `json:"brokerPubkey"`
	Sig          Sig     `json:"sig"`
}

// Attestation is a member's word that a session key is its own: the signature
// over T("session", mesh, member, session, issued). Issued is Unix ms.
type Attestation struct {
	Issued int64 `json:"issued"`
	Sig    Sig   `json:"sig"`
}

// Card is a sealed presence card (protocol section 6). Blob is nonce then
// secretbox under the mesh key of Generation; Sig is the session key's.
type Card struct {
	Generation uint64 `json:"generation"`
	Seq        uint64 `json:"seq"`
	Blob       Blob   `json:"blob"`
	Sig        Sig    `json:"sig"`
}

// Hello authenticates a connection (protocol section 5).
type Hello struct {
	Req
	ProtocolVersion int          `json:"protocolVersion"`
	Role            Role         `json:"role"`
	MeshID          ID           `json:"meshId"`
	Pubkey          Key          `json:"pubkey"`
	SessionPubkey   Key          `json:"sessionPubkey"`
	Nonce           Nonce32      `json:"nonce"`
	Attestation     *Attestation `json:"attestation,omitempty"`
	Card            *Card        `json:"card,omitempty"`
	Sig             Sig          `json:"sig"`
}

// Limits tells a client what the broker accepts.
type Limits struct {
	MessageBytes int   `json:"messageBytes"` // one WebSocket message
	Ciphertext   int   `json:"ciphertext"`   // bytes of one sealed body
	Wraps        int   `json:"wraps"`        // recipients of one group message
	Window       int   `json:"window"`       // unacknowledged pushes
	MaxAgeMs     int64 `json:"maxAgeMs"`     // longest lifetime of a message
}

// HelloAck says that the connection is registered. ServerTime is Unix ms;
// Pending counts the deliveries that wait for this connection's keys; SpreadMs is
// as in Spread. Blocked are the members whose messages the broker does not take for
// this one.
type HelloAck struct {
	Req
	Conn           string `json:"conn"`
	ServerTime     int64  `json:"serverTime"`
	Limits         Limits `json:"limits"`
	Pending        int    `json:"pending"`
	MembersVersion int64  `json:"membersVersion"`
	Generation     uint64 `json:"generation"`
	SpreadMs       int64  `json:"spreadMs,omitzero"`
	Blocked        []Key  `json:"blocked,omitempty"`
}

// Spread says over how many ms this broker's clients should spread when they
// lose it all at once: the more there are, the longer.
type Spread struct {
	SpreadMs int64 `json:"spreadMs"`
}

// Wrap is one recipient's key to a group message's body.
type Wrap struct {
	To  Key  `json:"to"`
	Box Blob `json:"box"`
}

// Send hands one sealed message to the broker. From is set when a connection
// carries a message that another session of the same member sealed.
type Send struct {
	Req
	ID         ID       `json:"id"`
	Mode       Mode     `json:"mode"`
	From       Key      `json:"from,omitzero"`
	To         Key      `json:"to,omitzero"`
	Priority   Priority `json:"priority"`
	Expires    int64    `json:"expires"` // Unix ms
	Nonce      Blob     `json:"nonce"`
	Ciphertext Blob     `json:"ciphertext"`
	Wraps      []Wrap   `json:"wraps,omitempty"`
}

// Recipient is one addressee of an accepted message, as known at the commit.
// State and Code are set in the answer to a repeat.
type Recipient struct {
	Key    Key   `json:"key"`
	Online bool  `json:"online"`
	State  State `json:"state,omitzero"`
	Code   Code  `json:"code,omitzero"`
}

// Skipped is a recipient of a group message that the broker could not queue for.
type Skipped struct {
	Key  Key  `json:"key"`
	Code Code `json:"code"`
}

// Ack says that a message and its deliveries are on the broker's disk.
type Ack struct {
	Req
	ID         ID          `json:"id"`
	Queued     bool        `json:"queued"`
	Duplicate  bool        `json:"duplicate,omitzero"`
	Recipients []Recipient `json:"recipients"`
	Skipped    []Skipped   `json:"skipped,omitempty"`
}

// Push is one delivery. Delivery is the broker's number for it, which
// client_ack and client_nack give back: a message id alone would not tell two
// senders' messages apart.
type Push struct {
	Delivery       int64    `json:"delivery"`
	ID             ID       `json:"id"`
	Mode           Mode     `json:"mode"`
	To             Key      `json:"to"`
	SenderPubkey   Key      `json:"senderPubkey"`
	SenderMember   Key      `json:"senderMember"`
	Priority       Priority `json:"priority"`
	Expires        int64    `json:"expires"`
	Nonce          Blob     `json:"nonce"`
	Ciphertext     Blob     `json:"ciphertext"`
	Wrap           Blob     `json:"wrap,omitempty"`
	CreatedAt      int64    `json:"createdAt"`
	MembersVersion int64    `json:"membersVersion"`
}

// ClientAck names deliveries that are committed in the recipient's inbox.
type ClientAck struct {
	Deliveries []int64 `json:"deliveries"`
}

// ClientNack refuses one delivery for good; the sender hears the code.
type ClientNack struct {
	Delivery int64 `json:"delivery"`
	Code     Code  `json:"code"`
}

// Receipt tells a sender what became of one delivery. At is Unix ms.
type Receipt struct {
	ID        ID    `json:"id"`
	Recipient Key   `json:"recipient"`
	State     State `json:"state"`
	Code      Code  `json:"code,omitzero"`
	At        int64 `json:"at"`
}

// MessageStatus asks for the states of messages that this member sent.
type MessageStatus struct {
	Req
	IDs []ID `json:"ids"`
}

// StatusList answers message_status: one receipt per delivery. An id that the
// broker does not know has none.
type StatusList struct {
	Req
	Statuses []Receipt `json:"statuses"`
}

// ListPeers asks for the live sessions and persons; with Offline also for the
// sessions that were seen in the last 30 days. With Watch the broker goes on to
// tell of changes by presence frames; without it there are none.
type ListPeers struct {
	Req
	Offline bool `json:"offline,omitzero"`
	Watch   bool `json:"watch,omitzero"`
}

// Peer is one session or person as the broker knows it. LastSeen is Unix ms.
type Peer struct {
	SessionPubkey Key          `json:"sessionPubkey"`
	Pubkey        Key          `json:"pubkey"`
	Role          Role         `json:"role"`
	Attestation   *Attestation `json:"attestation,omitempty"`
	Card          *Card        `json:"card,omitempty"`
	Online        bool         `json:"online"`
	LastSeen      int64        `json:"lastSeen"`
}

// PeersList answers list_peers. More says that another one of the same request
// follows: a frame holds some PageBytes.
type PeersList struct {
	Req
	Peers []Peer `json:"peers"`
	More  bool   `json:"more,omitzero"`
}

// PresenceEvent is what happened to a peer.
type PresenceEvent string

// The presence events.
const (
	PresenceJoined  PresenceEvent = "joined"
	PresenceLeft    PresenceEvent = "left"
	PresenceChanged PresenceEvent = "changed"
)

// Presence tells of one peer's coming, going or new card.
type Presence struct {
	Event PresenceEvent `json:"event"`
	Peer  Peer          `json:"peer"`
}

// SetCard replaces this session's card.
type SetCard struct {
	Req
	Card Card `json:"card"`
}

// Members asks for what changed in the membership after version Since.
type Members struct {
	Req
	Since int64 `json:"since"`
}

// KeyBox carries one mesh key generation to one member. Issuer is the member
// or owner key that boxed it; Box is nonce then ciphertext; Previous is the
// generation before, sealed under this one; Removal is the statement whose
// hash the key must match.
type KeyBox struct {
	Generation uint64 `json:"generation"`
	Issuer     Key    `json:"issuer"`
	Box        Blob   `json:"box"`
	Previous   Blob   `json:"previous"`
}

// MembersList answers members. Roles, certificates, removals, closes and pauses
// are those of versions above Since; Keys are the asker's own boxes.
type MembersList struct {
	Req
	Genesis      Signed        `json:"genesis"`
	Roles        []Signed      `json:"roles,omitempty"`
	Certificates []Certificate `json:"certificates"`
	Removals     []Signed      `json:"removals"`
	Closes       []Signed      `json:"closes"`
	Pauses       []Signed      `json:"pauses,omitempty"` // and resumes
	Keys         []KeyBox      `json:"keys"`
	Version      int64         `json:"version"`
	Generation   uint64        `json:"generation"`
	More         bool          `json:"more,omitzero"` // another one of the same request follows
}

// MembersChanged says that the membership has a new version.
type MembersChanged struct {
	Version int64 `json:"version"`
}

// InvitePut stores an invite. Generation names the mesh key that Blob seals.
type InvitePut struct {
	Req
	Capability Signed `json:"capability"`
	Blob       Blob   `json:"blob"`
	Generation uint64 `json:"generation"`
}

// InviteList asks for the mesh's invites.
type InviteList struct{ Req }

// InviteInfo is one invite and what was made of it.
type InviteInfo struct {
	Capability Signed `json:"capability"`
	Uses       int    `json:"uses"`
	Closed     bool   `json:"closed"`
	Voided     bool   `json:"voided,omitzero"`
	Created    int64  `json:"created"`
}

// Invites answers invite_list.
type Invites struct {
	Req
	Invites []InviteInfo `json:"invites"`
}

// InviteClose revokes an invite; Close lists the members it has admitted.
type InviteClose struct {
	Req
	Close Signed `json:"close"`
}

// KeyBoxTo is one member's box of a new mesh key.
type KeyBoxTo struct {
	To  Key  `json:"to"`
	Box Blob `json:"box"`
}

// Remove takes a member out, closes invites and issues the next mesh key, in
// one step. A member that leaves sends its own removal alone.
type Remove struct {
	Req
	Removal  Signed     `json:"removal"`
	Closes   []Signed   `json:"closes,omitempty"`
	Issuer   Key        `json:"issuer,omitzero"`
	Boxes    []KeyBoxTo `json:"boxes,omitempty"`
	Previous Blob       `json:"previous,omitempty"`
}

// SetRole changes a member's role; with a demotion go the closes of the open
// invites that the member had issued. MembersVersion is the one it was built on.
type SetRole struct {
	Req
	Role           Signed   `json:"role"`
	Closes         []Signed `json:"closes,omitempty"`
	MembersVersion int64    `json:"membersVersion"`
}

// Pause stops the mesh's messages, or lets them go on: it carries a pause or a
// resume statement.
type Pause struct {
	Req
	Pause Signed `json:"pause"`
}

// Kick closes a member's connections. It may connect again.
type Kick struct {
	Req
	Member Key `json:"member"`
}

// Block tells the broker whose messages this member does not take, so that it
// refuses them at once.
type Block struct {
	Req
	Member  Key  `json:"member"`
	Blocked bool `json:"blocked"`
}

// OK answers a request that has nothing else to say.
type OK struct {
	Req
	Version int64 `json:"version,omitzero"`
	Voided  []ID  `json:"voided,omitempty"` // invites that a removal voided
}

// Error refuses a request or reports a fault. ID is set when it refuses a send.
type Error struct {
	Req
	Code         Code   `json:"code"`
	Message      string `json:"message"`
	Retryable    bool   `json:"retryable"`
	RetryAfterMs int64  `json:"retryAfterMs,omitzero"`
	ID           ID     `json:"id,omitzero"`
}

func (*Challenge) Type() Type      { return TypeChallenge }
func (*Hello) Type() Type          { return TypeHello }
func (*HelloAck) Type() Type       { return TypeHelloAck }
func (*Send) Type() Type           { return TypeSend }
func (*Ack) Type() Type            { return TypeAck }
func (*Push) Type() Type           { return TypePush }
func (*ClientAck) Type() Type      { return TypeClientAck }
func (*ClientNack) Type() Type     { return TypeClientNack }
func (*Receipt) Type() Type        { return TypeReceipt }
func (*MessageStatus) Type() Type  { return TypeMessageStatus }
func (*StatusList) Type() Type     { return TypeStatusList }
func (*ListPeers) Type() Type      { return TypeListPeers }
func (*PeersList) Type() Type      { return TypePeersList }
func (*Presence) Type() Type       { return TypePresence }
func (*SetCard) Type() Type        { return TypeSetCard }
func (*Members) Type() Type        { return TypeMembers }
func (*MembersList) Type() Type    { return TypeMembersList }
func (*MembersChanged) Type() Type { return TypeMembersChanged }
func (*InvitePut) Type() Type      { return TypeInvitePut }
func (*InviteList) Type() Type     { return TypeInviteList }
func (*Invites) Type() Type        { return TypeInvites }
func (*InviteClose) Type() Type    { return TypeInviteClose }
func (*Remove) Type() Type         { return TypeRemove }
func (*SetRole) Type() Type        { return TypeSetRole }
func (*Pause) Type() Type          { return TypePause }
func (*Kick) Type() Type           { return TypeKick }
func (*Block) Type() Type          { return TypeBlock }
func (*Spread) Type() Type         { return TypeSpread }
func (*OK) Type() Type             { return TypeOK }
func (*Error) Type() Type          { return TypeError }

// blank makes an empty frame of each type; a test holds it against the constants.
var blank = map[Type]func() Frame{
	TypeChallenge:      func() Frame { return new(Challenge) },
	TypeHello:          func() Frame { return new(Hello) },
	TypeHelloAck:       func() Frame { return new(HelloAck) },
	TypeSend:           func() Frame { return new(Send) },
	TypeAck:            func() Frame { return new(Ack) },
	TypePush:           func() Frame { return new(Push) },
	TypeClientAck:      func() Frame { return new(ClientAck) },
	TypeClientNack:     func() Frame { return new(ClientNack) },
	TypeReceipt:        func() Frame { return new(Receipt) },
	TypeMessageStatus:  func() Frame { return new(MessageStatus) },
	TypeStatusList:     func() Frame { return new(StatusList) },
	TypeListPeers:      func() Frame { return new(ListPeers) },
	TypePeersList:      func() Frame { return new(PeersList) },
	TypePresence:       func() Frame { return new(Presence) },
	TypeSetCard:        func() Frame { return new(SetCard) },
	TypeMembers:        func() Frame { return new(Members) },
	TypeMembersList:    func() Frame { return new(MembersList) },
	TypeMembersChanged: func() Frame { return new(MembersChanged) },
	TypeInvitePut:      func() Frame { return new(InvitePut) },
	TypeInviteList:     func() Frame { return new(InviteList) },
	TypeInvites:        func() Frame { return new(Invites) },
	TypeInviteClose:    func() Frame { return new(InviteClose) },
	TypeRemove:         func() Frame { return new(Remove) },
	TypeSetRole:        func() Frame { return new(SetRole) },
	TypePause:          func() Frame { return new(Pause) },
	TypeKick:           func() Frame { return new(Kick) },
	TypeBlock:          func() Frame { return new(Block) },
	TypeSpread:         func() Frame { return new(Spread) },
	TypeOK:             func() Frame { return new(OK) },
	TypeError:          func() Frame { return new(Error) },
}
