package keyfile

import (
	"errors"
	"fmt"
	"io/fs"

	"relaymarket/internal/atomicfile"
)

// writeFile puts data at path in one step: a crash leaves what was there, or
// all of data. Without replace it fails with ErrExists if anything is there.
func writeFile(path string, data []byte, replace bool) error {
	put := atomicfile.Create
	if replace {
		put = atomicfile.Replace
	}
	err := put(path, data)
	if errors.Is(err, fs.ErrExist) && !replace {
		err = existsError(path)
	}
	if err != nil {
		return fmt.Errorf("the key file: %w", err)
	}
	return nil
}
