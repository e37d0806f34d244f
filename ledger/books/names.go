package books

import (
	"encoding/binary"
	"errors"
	"math"
)

// Names of a page's records, with their sizes, are one value of pages, and stand so in a block of the ledger: of each record the length
// of its id, the id, and the bytes of its envelope. Numbers are unsigned varints (package encoding/binary).

// AppendName adds a record.
func AppendName(names []byte, id string, bytes int32) []byte {
	names = append(binary.AppendUvarint(names, uint64(len(id))), id...)
	return binary.AppendUvarint(names, uint64(bytes))
}

// ReadNames takes the names of so many records apart. The ids are within names.
func ReadNames(names []byte, records int) (ids [][]byte, sizes []int32, err error) {
	r := blockReader{rest: names}
	if records < 0 || records > len(names) {
		return nil, nil, errNames
	}
	ids, sizes = make([][]byte, records), make([]int32, records)
	for i := range records {
		ids[i] = r.bytes(r.number())
		size := r.number()
		if r.bad || size > math.MaxInt32 {
			return nil, nil, errNames
		}
		sizes[i] = int32(size)
	}
	if len(r.rest) > 0 {
		return nil, nil, errNames
	}
	return ids, sizes, nil
}

var errNames = errors.New("the names of a page are damaged")
