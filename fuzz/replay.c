/* Runs a harness over every file of a folder: the seeds stay good in every `make check`, under any
 * compiler. Each input is copied into a heap block of its exact size, so that a sanitizer sees the
 * first byte past it. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int one_file(const char *dir, const char *name)
{
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    if (f == NULL || fseek(f, 0, SEEK_END) != 0) {
        perror(path);
        return 1;
    }
    long n = ftell(f);
    rewind(f);
    uint8_t *p = malloc(n > 0 ? (size_t)n : 1);
    size_t got = p != NULL ? fread(p, 1, (size_t)n, f) : 0;
    (void)fclose(f);
    uint8_t *exact = malloc(got > 0 ? got : 1);
    for (size_t i = 0; exact != NULL && i < got; i++) {
        exact[i] = p[i];
    }
    free(p);
    (void)LLVMFuzzerTestOneInput(exact, got);
    free(exact);
    return 0;
}

int main(int argc, char **argv)
{
    int n = 0;
    DIR *d = argc == 2 ? opendir(argv[1]) : NULL;
    if (d == NULL) {
        (void)fprintf(stderr,
                      "usage: %s FOLDER (it must exist: a harness without seeds is no test)\n",
                      argv[0]);
        return 2;
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (e->d_name[0] != '.') {
            if (one_file(argv[1], e->d_name) != 0) {
                return 1;
            }
            n++;
        }
    }
    (void)closedir(d);
    printf("%d inputs\n", n);
    return n > 0 ? 0 : 1;
}
