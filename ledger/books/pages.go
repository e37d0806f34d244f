package books

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
)

// readPages reads rows as they came: a busy ledger is pulls, and converting each array by itself costs more than what is done
// with it.
func (r *round) readPages(rows pgx.Rows) error {
	pages, pulls := 0, 0
	for rows.Next() {
		c := rows.RawValues()
		k, err := r.readPage(c[0], newArray(c[1]), c[2], newArray(c[3]), newArray(c[4]), c[5], c[6])
		if err != nil {
			return err
		}
		pages, pulls = pages+1, pulls+k
	}
	r.full = r.full || pages == postPages || pulls >= postPulls
	return rows.Err()
}

// served is a page that was acknowledged, as its row has it.
type served struct {
	reader  protocol.PublicKey
	got     []byte
	hashes  []byte // 32 bytes a record
	senders []byte // 32 bytes a record, or 32 if all are of one sender
	ids     [][]byte
	sizes   []int32
}

func (p *served) records() int { return len(p.sizes) }

func (p *served) sender(at int32) protocol.PublicKey {
	if len(p.senders) == 32 {
		at = 0
	}
	return protocol.PublicKey(p.senders[32*at:])
}

func (p *served) hash(at int32) protocol.Hash { return protocol.Hash(p.hashes[32*at:]) }

// bytesOf is what these of its records have together.
func (p *served) bytesOf(records []int32) (sum int64) {
	for _, at := range records {
		sum += int64(p.sizes[at])
	}
	return sum
}

// readPage takes the pulls of a page that are on bills, and tells how many records it has. What it is given is copied.
func (r *round) readPage(reader []byte, bills array, senders []byte, ids, sizes array, hashes, got []byte) (records int, err error) {
	records = sizes.n
	oneBill := bills.n == 1
	if bills.n != records && !oneBill || ids.n != records || len(senders) != 32*records && len(senders) != 32 || len(hashes) != 32*records || len(reader) != 32 {
		return 0, fmt.Errorf("a page of %x has %d records, and %d bills", reader, records, bills.n)
	}
	ids.rest = slices.Clone(ids.rest)
	page := &served{reader: protocol.PublicKey(reader), got: slices.Clone(got), hashes: slices.Clone(hashes), senders: slices.Clone(senders),
		ids: make([][]byte, records), sizes: make([]int32, records)}
	bill := bills.next()
	var on int64                      // the bill that mine is of: most pages are of one
	mine := make([]int32, 0, records) // records on it
	others := map[int64][]int32(nil)
	for i := range records {
		if i > 0 && !oneBill {
			bill = bills.next()
		}
		size := sizes.next()
		if len(bill) != 8 || len(size) != 4 {
			return 0, fmt.Errorf("a page of %x is not what pages are", reader)
		}
		page.ids[i], page.sizes[i] = ids.next(), int32(binary.BigEndian.Uint32(size))
		n := int64(binary.BigEndian.Uint64(bill))
		if on == 0 {
			on = n
		}
		switch {
		case n == 0:
		case n == on:
			mine = append(mine, int32(i))
		default:
			if others == nil {
				others = make(map[int64][]int32)
			}
			others[n] = append(others[n], int32(i))
		}
	}
	if on != 0 {
		r.add(on, posting{page: page, pulls: mine})
	}
	for n, records := range others {
		r.add(n, posting{page: page, pulls: records})
	}
	return records, nil
}

// array reads an array of one dimension without nulls in PostgreSQL's binary format (array_send): the number of dimensions, flags and
// the type of 4 bytes each, length and lower bound, then each value with its length before it.
type array struct {
	n    int
	rest []byte
}

const arrayHeader = 20

func newArray(raw []byte) array {
	if len(raw) < arrayHeader {
		return array{}
	}
	return array{n: int(binary.BigEndian.Uint32(raw[12:])), rest: raw[arrayHeader:]}
}

// next is the next value; nil when there is none.
func (a *array) next() []byte {
	if len(a.rest) < 4 {
		return nil
	}
	k := int(int32(binary.BigEndian.Uint32(a.rest)))
	if k < 0 || len(a.rest) < 4+k {
		a.rest = nil
		return nil
	}
	value := a.rest[4 : 4+k]
	a.rest = a.rest[4+k:]
	return value
}
