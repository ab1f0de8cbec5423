package mount

import (
	"testing"

	"pgregory.net/rapid"
)

func TestNameList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l nameList
		var model []string
		names := rapid.OneOf(rapid.StringMatching(`(shared/){0,3}[a-c]{1,5}`), rapid.StringN(1, 60, 255))
		for _, name := range rapid.SliceOfN(names, 0, 100).Draw(t, "names") {
			l.append(name)
			model = append(model, name)
		}
		if l.len() != len(model) {
			t.Fatalf("%d names, want %d", l.len(), len(model))
		}
		for i, want := range model {
			if got := l.at(i); got != want {
				t.Fatalf("name %d is %q, want %q", i, got, want)
			}
		}
	})
}

func TestNameListPlaces(t *testing.T) {
	var l nameList
	place := 0
	for _, name := range []string{"a", "b", "d"} {
		place = l.after(place, name)
	}
	if place != 3 {
		t.Fatalf("place %d, want 3", place)
	}
	// Read again from after "a": b is where it was; c came; d moved on, but
	// its old place still stands for it.
	if place = l.after(1, "b"); place != 2 {
		t.Fatalf("b is at %d", place)
	}
	if place = l.after(place, "c"); place != 4 {
		t.Fatalf("c is at %d", place)
	}
	if place = l.after(place, "d"); place != 5 {
		t.Fatalf("d is at %d", place)
	}
	if l.at(2) != "d" || l.at(4) != "d" || l.at(3) != "c" {
		t.Fatal("places moved")
	}
	l.reset()
	if l.len() != 0 || l.after(0, "z") != 1 || l.at(0) != "z" {
		t.Fatal("not empty after reset")
	}
}

func TestHandles(t *testing.T) {
	var h handles[int]
	one, two := 1, 2
	a := h.add(&one)
	b := h.add(&two)
	if a == 0 || b == 0 || h.get(a) != &one || h.get(b) != &two || h.len() != 2 {
		t.Fatal("lost a handle")
	}
	if h.remove(a) != &one || h.get(a) != nil || h.remove(a) != nil {
		t.Fatal("a removed handle answers")
	}
	c := h.add(&one)
	if c == a || uint32(c) != uint32(a) || h.get(a) != nil || h.get(c) != &one {
		t.Fatal("a stale handle was not told from the new one in its place")
	}
	if h.get(1<<40|77) != nil || len(h.drain()) != 2 || h.len() != 0 || h.get(b) != nil {
		t.Fatal("drain")
	}
}
