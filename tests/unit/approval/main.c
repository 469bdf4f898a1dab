#include "store/world.h"

CS_WORLD
CS_TEST_MAIN()
