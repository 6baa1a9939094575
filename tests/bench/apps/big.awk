# SPDX-License-Identifier: GPL-2.0-or-later
#
# A C source with n functions and 20 n table entries, as generators make them:
# what it takes to compile it is memory.

function item(k)
{
    printf "{ \"item %d of many\", %d, f%d, %s },\n", k, k * 7919, k % n,
           k ? "items + " k - 1 : "0"
}

BEGIN {
    print "struct item { const char *name; long value; int (*fn)(int);"
    print "              struct item *next; };"
    for (i = 0; i < n; i++) {
        printf "static int f%d(int x)\n{\n", i
        printf "    int s = %d, i;\n", i * 7919 % 10007
        printf "    for (i = 0; i < x; i++) {\n"
        printf "        s = s * 31 + (i ^ %d);\n", i * 31
        printf "        s += s & %d ? -i * 7 : x %% (i + %d);\n", 1 + i % 64,
               1 + i % 13
        printf "    }\n    return s;\n}\n"
    }
    print "struct item items[] = {"
    for (k = 0; k < 20 * n; k++) {
        item(k)
    }
    print "};\nint main(void)\n{\n    return items[3].fn(5) & 1;\n}"
}
