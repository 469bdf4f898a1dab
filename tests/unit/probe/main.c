#include "tap.h"

CS_TEST_MAIN()
