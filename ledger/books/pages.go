package books

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
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

// readPage takes the pulls of a page that are on bills, and tells how many records it has.
func (r *round) readPage(reader []byte, bills array, senders []byte, ids, sizes array, hashes, got []byte) (records int, err error) {
	records = ids.n
	oneBill, oneSender := bills.n == 1, len(senders) == 32 // all have it
	if bills.n != records && !oneBill || sizes.n != records || len(senders) != 32*records && !oneSender || len(hashes) != 32*records {
		return 0, fmt.Errorf("a page of %x has %d records, and %d bills", reader, records, bills.n)
	}
	bill, sender := bills.next(), senders
	all := make([]protocol.Hash, records)
	for i := range all {
		all[i] = protocol.Hash(hashes[32*i:])
	}
	var last int64 // most pages are of one bill
	var page *acked
	byBill := make(map[int64]*acked, 1)
	for i := range records {
		if i > 0 && !oneBill {
			bill = bills.next()
		}
		if !oneSender {
			sender = senders[32*i:]
		}
		id, size := ids.next(), sizes.next()
		if len(bill) != 8 || len(size) != 4 {
			return 0, fmt.Errorf("a page of %x is not what pages are", reader)
		}
		n := int64(binary.BigEndian.Uint64(bill))
		if n == 0 {
			continue
		}
		if n != last || page == nil {
			if page = byBill[n]; page == nil {
				page = &acked{got: slices.Clone(got), hashes: all}
				byBill[n] = page
			}
			last = n
		}
		page.mine++
		l := lineOf(sender[:32], reader, string(id), all[i][:], int32(binary.BigEndian.Uint32(size)))
		l.Kind = ledger.KindPull
		r.add(n, posting{line: l, page: page, at: i})
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
