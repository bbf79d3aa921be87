# Stand-in for the feed's rust-package.mk.
RUST_ARCH_DEPENDS:=@(aarch64||arm||mips||mipsel||x86_64)
CARGO_PKG_VARS=PROFILE=release
CARGO_PKG_ARGS=--locked
define RustBinPackage
endef
