package seal

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/zeebo/blake3"
)

// The labels under which keys are derived from a read key.
const (
	labelAEAD  = "hearth.tradle.io/seal/v1 aead"
	labelNonce = "hearth.tradle.io/seal/v1 nonce"
	labelGear  = "hearth.tradle.io/seal/v1 gear"
)

// Keyring holds the read keys of a drive, by epoch. It seals under the newest
// and opens under all. All methods may be called at the same time.
type Keyring struct {
	mu    sync.Mutex                  // held by Add
	keys  atomic.Pointer[[]*epochKey] // newest first; never changed in place
	added atomic.Pointer[chan struct{}]
}

// NewKeyring returns a Keyring that holds no key yet.
func NewKeyring() *Keyring {
	k := &Keyring{}
	k.keys.Store(new([]*epochKey))
	k.added.Store(new(make(chan struct{})))
	return k
}

// Added returns a channel that is closed when a key is added.
func (k *Keyring) Added() <-chan struct{} { return *k.added.Load() }

// Add adds the read key of an epoch, replacing one added before.
func (k *Keyring) Add(epoch uint32, readKey [32]byte) {
	key := newEpochKey(epoch, readKey)
	k.mu.Lock()
	defer k.mu.Unlock()
	keys := slices.DeleteFunc(slices.Clone(*k.keys.Load()), func(o *epochKey) bool { return o.epoch == epoch })
	keys = append(keys, key)
	slices.SortFunc(keys, func(a, b *epochKey) int { return int(int64(b.epoch) - int64(a.epoch)) })
	k.keys.Store(&keys)
	close(*k.added.Swap(new(make(chan struct{}))))
}

func (k *Keyring) find(epoch uint32) (*epochKey, error) {
	for _, key := range *k.keys.Load() {
		if key.epoch == epoch {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%w for epoch %d", ErrNoKey, epoch)
}

// epochKey is what is derived from one read key.
type epochKey struct {
	epoch   uint32
	aead    *xaes
	sealers sync.Pool // of *sealer: a keyed hasher is 10 KiB
	gear    func() *gearTable
}

func newEpochKey(epoch uint32, readKey [32]byte) *epochKey {
	aead, err := newXAES((*[32]byte)(derive(readKey, labelAEAD, 32)))
	if err != nil {
		panic(err) // AES has no invalid key of 32 bytes
	}
	nonce := derive(readKey, labelNonce, 32)
	return &epochKey{
		epoch: epoch,
		aead:  aead,
		sealers: sync.Pool{New: func() any {
			h, err := blake3.NewKeyed(nonce)
			if err != nil {
				panic(err) // as above
			}
			return &sealer{hash: h}
		}},
		gear: sync.OnceValue(func() *gearTable {
			return newGearTable(derive(readKey, labelGear, 8*len(gearTable{})))
		}),
	}
}

func derive(readKey [32]byte, label string, size int) []byte {
	out, err := hkdf.Key(sha256.New, readKey[:], nil, label, size)
	if err != nil {
		panic(err) // the size is a constant within what HKDF can give
	}
	return out
}
