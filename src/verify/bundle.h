/* Names and limits of a bundle's members (docs/format.md), for who makes and who checks one. */
#ifndef CS_VERIFY_BUNDLE_H
#define CS_VERIFY_BUNDLE_H

#include "verify/ustar.h"

#define CS_BUNDLE_MAGIC      "countersign-bundle/1"
#define CS_BUNDLE_MANIFEST   "manifest"
#define CS_BUNDLE_CHECKPOINT "checkpoint"
#define CS_BUNDLE_LEAF       "leaf-%020" PRIu64 ".tlog-proof"
enum { CS_BUNDLE_MANIFEST_MAX = 1024 };

#endif
