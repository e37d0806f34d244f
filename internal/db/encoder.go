package db

import "encoding/binary"

// Encoder writes rows in the binary format of COPY (PostgreSQL documentation, COPY, "Binary Format"):
// a header, then for each row the number of its columns and each column as its length and its bytes,
// then a trailer. A column's type must be exactly the table's, for nothing is converted.
type Encoder struct {
	buf []byte
}

// NewEncoder begins with a buffer to write to, whose contents are lost; nil is fine.
func NewEncoder(buf []byte) *Encoder {
	return &Encoder{buf: append(buf[:0], "PGCOPY\n\377\r\n\x00"+"\x00\x00\x00\x00"+"\x00\x00\x00\x00"...)}
}

// Row begins a row of so many columns.
func (e *Encoder) Row(columns int) { e.buf = binary.BigEndian.AppendUint16(e.buf, uint16(columns)) }

// Bytes is a column of type bytea.
func (e *Encoder) Bytes(v []byte) {
	e.buf = binary.BigEndian.AppendUint32(e.buf, uint32(len(v)))
	e.buf = append(e.buf, v...)
}

// Text is a column of type text.
func (e *Encoder) Text(v string) {
	e.buf = binary.BigEndian.AppendUint32(e.buf, uint32(len(v)))
	e.buf = append(e.buf, v...)
}

// Integer is a column of type integer.
func (e *Encoder) Integer(v int32) {
	e.buf = binary.BigEndian.AppendUint32(e.buf, 4)
	e.buf = binary.BigEndian.AppendUint32(e.buf, uint32(v))
}

// Bigint is a column of type bigint.
func (e *Encoder) Bigint(v int64) {
	e.buf = binary.BigEndian.AppendUint32(e.buf, 8)
	e.buf = binary.BigEndian.AppendUint64(e.buf, uint64(v))
}

// Bool is a column of type boolean.
func (e *Encoder) Bool(v bool) {
	e.buf = binary.BigEndian.AppendUint32(e.buf, 1)
	if v {
		e.buf = append(e.buf, 1)
	} else {
		e.buf = append(e.buf, 0)
	}
}

// Null is a column of any type without a value.
func (e *Encoder) Null() { e.buf = binary.BigEndian.AppendUint32(e.buf, 1<<32-1) }

// End writes the trailer and returns all of it.
func (e *Encoder) End() []byte {
	e.buf = binary.BigEndian.AppendUint16(e.buf, 1<<16-1)
	return e.buf
}

func putUint32(b []byte, n int) { binary.BigEndian.PutUint32(b, uint32(n)) }
