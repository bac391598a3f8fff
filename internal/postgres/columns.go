package postgres

import (
	"encoding/binary"
	"fmt"
)

// array is a one-dimensional array as the server takes it in binary: dimensions,
// flags and element type, length and lower bound, then each element
// after its length. The writer's are built in place and used again, as
// the driver's way through reflection costs more than all else a message does here.
type array struct {
	buf []byte
	n   int
}

// Element types: https://www.postgresql.org/docs/current/catalog-pg-type.html
const (
	oidBytea = 17
	oidInt8  = 20
	oidText  = 25
)

const arrayHeader = 20

func (a *array) reset(oid uint32) {
	a.n = 0
	if a.buf == nil {
		a.buf = make([]byte, arrayHeader, 1024)
	}
	a.buf = a.buf[:arrayHeader]
	binary.BigEndian.PutUint32(a.buf[8:], oid)
	binary.BigEndian.PutUint32(a.buf[16:], 1)
}

func (a *array) int(v int64) {
	a.n++
	a.buf = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(a.buf, 8), uint64(v))
}

// bytes adds v, and nil as an empty value.
func (a *array) bytes(v []byte) {
	a.n++
	a.buf = append(binary.BigEndian.AppendUint32(a.buf, uint32(len(v))), v...)
}

func (a *array) text(v string) {
	a.n++
	a.buf = append(binary.BigEndian.AppendUint32(a.buf, uint32(len(v))), v...)
}

func (a *array) null() {
	a.n++
	a.buf = binary.BigEndian.AppendUint32(a.buf, 1<<32-1)
}

// value ends the array. It is good until the next reset.
func (a *array) value() []byte {
	if a.n == 0 {
		binary.BigEndian.PutUint32(a.buf, 0)
		return a.buf[:12]
	}
	binary.BigEndian.PutUint32(a.buf, 1)
	binary.BigEndian.PutUint32(a.buf[12:], uint32(a.n))
	return a.buf
}

// eachInt calls got with every element of an array of bigint, NULL being an empty one.
func eachInt(array []byte, got func(v int64)) error {
	if len(array) <= 12 {
		return nil
	}
	const size = 4 + 8
	elements := array[arrayHeader:]
	if len(elements)%size != 0 {
		return fmt.Errorf("%w: an array of %d bytes", errData, len(array))
	}
	for ; len(elements) > 0; elements = elements[size:] {
		got(int64(binary.BigEndian.Uint64(elements[4:])))
	}
	return nil
}
