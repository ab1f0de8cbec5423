package peer

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// TokenStep is what the number of offered tokens is a multiple of.
const TokenStep = 16

// Labels are the first bytes of what is hashed, so that no input of one use is
// an input of another. None is a prefix of another: each ends in its only zero.
const (
	labelToken  = "hearth/1 token\x00"
	labelCommit = "hearth/1 commitment\x00"
	labelSAS    = "hearth/1 words\x00"
)

// ID names a drive.
type ID [32]byte

// Secret is the hold secret of a drive: whoever has it may hold the drive. It
// prints as nothing but its type.
type Secret [32]byte

// Format keeps the secret out of messages, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "peer.Secret") }

// Token says, and proves, which drive a side may hold. Without the hold secret
// of the drive it looks like 32 random bytes.
type Token [sha256.Size]byte

// Roles as they go into tokens.
const (
	roleDialer   = 1
	roleListener = 2
)

// token computes the token of the side with the given role.
func token(exported [32]byte, p parties, role byte, id ID, secret Secret) Token {
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte(labelToken))
	mac.Write(exported[:])
	mac.Write([]byte{role})
	mac.Write(p.dialer[:])
	mac.Write(p.listener[:])
	mac.Write(id[:])
	return Token(mac.Sum(nil))
}

// role returns the role of this side, or of the other one.
func (c *Conn) role(other bool) byte {
	if c.dialed != other {
		return roleDialer
	}
	return roleListener
}

// Token returns this side's token for a drive.
func (c *Conn) Token(id ID, secret Secret) Token {
	return token(c.capability, c.parts, c.role(false), id, secret)
}

// CheckToken says whether t is the other side's token for a drive, in constant
// time. A token of this side is none of the other's.
func (c *Conn) CheckToken(id ID, secret Secret, t Token) bool {
	want := token(c.capability, c.parts, c.role(true), id, secret)
	return hmac.Equal(want[:], t[:])
}

// OfferTokens returns this side's tokens for its drives, filled up with tokens
// for nothing to the next multiple of TokenStep, at least one step. They are
// sorted, which among pseudo-random strings is an order that says nothing. On
// one connection the same drives give the same tokens, so that asking twice
// does not tell the fillers apart.
func (c *Conn) OfferTokens(drives map[ID]Secret) []Token {
	n := max(TokenStep, (len(drives)+TokenStep-1)/TokenStep*TokenStep)
	tokens := make([]Token, 0, n)
	for id, secret := range drives {
		tokens = append(tokens, c.Token(id, secret))
	}
	for i := len(tokens); i < n; i++ {
		mac := hmac.New(sha256.New, c.pad[:])
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(i)))
		tokens = append(tokens, Token(mac.Sum(nil)))
	}
	slices.SortFunc(tokens, func(a, b Token) int { return bytes.Compare(a[:], b[:]) })
	return tokens
}

// MatchTokens returns, sorted, those of the drives that the other side proved
// to hold with one of its tokens. The number of tokens is the caller's to
// bound, where it reads them.
func (c *Conn) MatchTokens(tokens []Token, drives map[ID]Secret) []ID {
	// The search compares in variable time, so it compares MACs under a key
	// that is used once: their timing says nothing of the tokens.
	once := random()
	blind := func(t Token) [sha256.Size]byte {
		mac := hmac.New(sha256.New, once[:])
		mac.Write(t[:])
		return [sha256.Size]byte(mac.Sum(nil))
	}
	offered := make(map[[sha256.Size]byte]bool, len(tokens))
	for _, t := range tokens {
		offered[blind(t)] = true
	}
	var ids []ID
	for id, secret := range drives {
		if offered[blind(token(c.capability, c.parts, c.role(true), id, secret))] {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// random returns 32 random bytes.
func random() (b [32]byte) {
	_, _ = rand.Read(b[:]) // never fails, says crypto/rand
	return b
}
