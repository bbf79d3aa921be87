# Stand-in for the SDK's package.mk: 'make install' and 'make variables' in the place of a build.
$(foreach name,PKG_NAME PKG_VERSION PKG_RELEASE PKG_SOURCE PKG_LICENSE PKG_BUILD_DEPENDS PKG_CONFIG_DEPENDS,\
  $(if $(value $(name)),,$(error $(name) is not set before package.mk)))

define BuildPackage
$(eval $(Package/$(1)))
export CONFFILES:=$$(Package/$(1)/conffiles)
export DESCRIPTION:=$$(Package/$(1)/description)
export POSTINST:=$$(Package/$(1)/postinst)
install:
	$$(call Package/$(1)/install,$$(DESTDIR))
variables:
	@echo "version=$$(PKG_VERSION)"
	@echo "release=$$(PKG_RELEASE)"
	@echo "features=$$(RUST_PKG_FEATURES)"
	@echo "args=$$(strip $$(CARGO_PKG_ARGS))"
	@echo "vars=$$(strip $$(CARGO_PKG_VARS))"
	@echo "depends=$$(DEPENDS)"
	@echo "config=$$(strip $$(PKG_CONFIG_DEPENDS))"
	@echo "url=$$(URL)"
	@echo 'maintainer=$$(PKG_MAINTAINER)'
	@echo "section=$$(SECTION)"
	@echo "title=$$(TITLE)"
	@echo "conffiles=`echo "$$$$CONFFILES" | tr '\n' ' '`"
	@echo "description=`echo "$$$$DESCRIPTION" | tr '\n' ' '`"
	@echo "postinst=`echo "$$$$POSTINST" | tr '\n' ' '`"
.PHONY: install variables
endef
