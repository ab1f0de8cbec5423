// Package hearth_test tests what no single package can: that the code keeps
// the shape docs/design.md gives it, and that what the documents and `make`
// tell a stranger to type works as it stands.
package hearth_test
