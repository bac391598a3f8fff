package wire

// The HTTP requests beside the WebSocket (protocol section 8).
const (
	PathWS      = "/ws"
	PathMeshes  = "/v2/meshes"
	PathJoin    = "/v2/join"
	PathInvites = "/v2/invites/"
)

// FoundRequest is the body of POST /v2/meshes.
type FoundRequest struct {
	Genesis Signed `json:"genesis"`
	Founder Signed `json:"founder"`
}

// FoundReply answers it.
type FoundReply struct {
	MeshID       ID  `json:"meshId"`
	BrokerPubkey Key `json:"brokerPubkey"`
}

// InviteReply answers GET /v2/invites/{id}. Issuer is the certificate of the
// admin that signed the capability, or the founder's when the owner key did;
// Roles are the role statements of that admin.
type InviteReply struct {
	Genesis    Signed        `json:"genesis"`
	Capability Signed        `json:"capability"`
	Issuer     []Certificate `json:"issuer,omitempty"`
	Roles      []Signed      `json:"roles,omitempty"`
}

// JoinRequest is the body of POST /v2/join: the new member's certificate.
type JoinRequest struct {
	Certificate Certificate `json:"certificate"`
}

// JoinReply answers it. Blob is the mesh key sealed with the invite's blob
// key; Sig is the broker key's over T("joined", SHA-256(request body), blob).
type JoinReply struct {
	Blob       Blob   `json:"blob"`
	Generation uint64 `json:"generation"`
	Sig        Sig    `json:"sig"`
}

// Link is the content of an invite link: base64url of this JSON.
type Link struct {
	V         int    `json:"v"`
	Broker    string `json:"broker"`
	BrokerKey Key    `json:"brokerKey"`
	Owner     Key    `json:"owner"`
	Secret    Blob   `json:"secret"`
}
