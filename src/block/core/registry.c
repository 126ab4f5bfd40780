/*
 * The formats that images can have. Probing takes the surest; raw is last and takes what is left.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "block/core/driver.h"

extern const struct block_driver image_luks, image_vdi, image_vhd, image_vhdx, image_vmdk;

const struct block_driver *const image_drivers[] = {
    &image_vdi, &image_vhd, &image_vhdx, &image_vmdk, &image_qcow2, &image_luks, &image_raw, NULL,
};

const struct block_driver *image_driver_find(const char *name)
{
    for (unsigned i = 0; image_drivers[i]; i++)
        if (!strcmp(image_drivers[i]->name, name))
            return image_drivers[i];
    return NULL;
}

const struct block_driver *image_driver_at(unsigned index)
{
    for (unsigned i = 0; image_drivers[i]; i++)
        if (i == index)
            return image_drivers[i];
    return NULL;
}

const char *image_driver_name(const struct block_driver *driver)
{
    return driver->name;
}

struct err *image_probe(struct image *file, const struct block_driver **driver)
{
    uint8_t head[IMAGE_PROBE_SIZE];
    size_t length = (size_t)MIN(file->size, (uint64_t)sizeof(head));
    int best = 0;
    *driver = &image_raw;
    if (length) {
        int result = image_read(file, head, 0, length);
        if (result)
            return err_errno(-result, "cannot read its beginning");
    }
    for (unsigned i = 0; image_drivers[i]; i++) {
        int score = image_drivers[i]->probe ? image_drivers[i]->probe(head, length, file->size) : 0;
        if (score > best) {
            best = score;
            *driver = image_drivers[i];
        }
    }
    return NULL;
}
