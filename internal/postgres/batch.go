package postgres

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// The arrays of the function post, in its order.
const (
	mNum = iota
	mMesh
	mSender
	mID
	mHash
	mMode
	mRecipients
	mCreated
	mExpires
	mVersion
	mNonce
	mCiphertext
	sizes
	dNum
	dMessage
	dRecipient
	dSize
	dPriority
	dWrap
	sID
	sRecipient
	sMesh
	sAt
	sState
	sCode
	arrays
)

// before are post's parameters that stand before the arrays: me, mine, meshes, total.
const before = 4

// postStatement is the name under which each of the writer's connections prepares postQuery.
const postStatement = "post"

var postQuery = "SELECT first, stored, settled FROM post($1" + func() (list string) {
	for i := 2; i <= before+arrays; i++ {
		list += fmt.Sprintf(", $%d", i)
	}
	return list
}() + ")"

// columns are the arguments of post for one batch.
type columns struct {
	array  [arrays]array
	meshes array
	locked map[int64]struct{} // what stands in meshes
	total  int64
	places []*bool          // of each settlement: where its outcome goes
	ends   map[end]struct{} // what is settled
	values [][]byte
}

// end is what a batch settles at most once.
type end struct {
	delivery  int64
	recipient broker.PeerID
}

func (c *columns) reset() {
	for i := range c.array {
		oid := uint32(oidInt8)
		switch i {
		case mID, mHash, mNonce, mCiphertext, dWrap:
			oid = oidBytea
		case sCode:
			oid = oidText
		}
		c.array[i].reset(oid)
	}
	c.meshes.reset(oidInt8)
	c.total, c.places = 0, c.places[:0]
	if c.locked == nil {
		c.locked, c.ends = make(map[int64]struct{}), make(map[end]struct{})
	}
	clear(c.locked)
	clear(c.ends)
}

func (c *columns) empty() bool { return c.total == 0 && len(c.places) == 0 }

func (c *columns) lock(mesh int64) {
	if _, ok := c.locked[mesh]; !ok {
		c.locked[mesh] = struct{}{}
		c.meshes.int(mesh)
	}
}

// message adds a message and returns its number in the batch.
func (c *columns) message(m *broker.Message, mesh int64, mode, rank int) (num int64) {
	c.lock(mesh)
	num, a := c.total, &c.array
	a[mNum].int(num)
	a[mMesh].int(mesh)
	a[mSender].int(int64(m.Sender))
	a[mID].bytes(m.ID[:])
	a[mHash].bytes(m.Hash[:])
	a[mMode].int(int64(mode))
	a[mRecipients].int(int64(len(m.Deliveries)))
	a[mCreated].int(schema.Millis(m.Created))
	a[mExpires].int(schema.Millis(m.Expires))
	a[mVersion].int(m.MembersVersion)
	a[mNonce].bytes(m.Nonce)
	a[mCiphertext].bytes(m.Ciphertext)
	size := int64(0)
	for i := range m.Deliveries {
		size += m.Size(m.Deliveries[i])
	}
	a[sizes].int(size)
	for range len(m.Deliveries) - 1 {
		a[sizes].int(0)
	}
	for i := range m.Deliveries {
		d := &m.Deliveries[i]
		a[dNum].int(num + int64(i))
		a[dMessage].int(num)
		a[dRecipient].int(int64(d.Recipient))
		a[dSize].int(m.Size(*d))
		a[dPriority].int(int64(rank))
		if d.Wrap == nil {
			a[dWrap].null()
		} else {
			a[dWrap].bytes(d.Wrap)
		}
	}
	c.total += max(1, int64(len(m.Deliveries)))
	return num
}

// settlement adds a settlement whose outcome goes to settled. A second one of
// the same delivery finds it settled.
func (c *columns) settlement(e *broker.Settlement, mesh int64, settled *bool) {
	key := end{e.Delivery, e.Recipient}
	if _, twice := c.ends[key]; twice {
		return
	}
	c.ends[key] = struct{}{}
	c.lock(mesh)
	state, code := stateAndCode(e)
	a := &c.array
	a[sID].int(e.Delivery)
	a[sRecipient].int(int64(e.Recipient))
	a[sMesh].int(mesh)
	a[sAt].int(schema.Millis(e.At))
	a[sState].int(state)
	a[sCode].text(code)
	c.places = append(c.places, settled)
}

func stateAndCode(e *broker.Settlement) (state int64, code string) {
	if e.State == wire.StateBounced {
		return schema.StateBounced, string(e.Code)
	}
	return schema.StateDelivered, ""
}

// post sends the batch for a node and commits it. stored gets each message's
// number in the batch that was stored; their final numbers count from first.
func (c *columns) post(ctx context.Context, conn *pgconn.PgConn, node broker.Node, stored func(num int64)) (first int64, err error) {
	c.values = append(c.values[:0], []byte(node.Name), binary.BigEndian.AppendUint64(nil, uint64(node.Epoch)),
		c.meshes.value(), binary.BigEndian.AppendUint64(nil, uint64(c.total)))
	for i := range c.array {
		c.values = append(c.values, c.array[i].value())
	}
	binary1 := []int16{1} // all parameters, all results
	res := conn.ExecPrepared(ctx, postStatement, c.values, binary1, binary1).Read()
	if res.Err != nil {
		return 0, res.Err
	}
	if len(res.Rows) != 1 || len(res.Rows[0]) != 3 {
		return 0, fmt.Errorf("%w: post returned %d rows", errData, len(res.Rows))
	}
	row := res.Rows[0]
	if len(row[0]) == 8 {
		first = int64(binary.BigEndian.Uint64(row[0]))
	}
	if err := eachInt(row[1], stored); err != nil {
		return 0, err
	}
	return first, eachInt(row[2], func(place int64) { *c.places[place-1] = true })
}
