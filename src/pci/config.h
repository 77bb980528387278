/* config.h - offsets and bits of the type 0 configuration header (PCI 3.0, 6.1 and 6.2). */
#ifndef SOSIA_PCI_CONFIG_H
#define SOSIA_PCI_CONFIG_H

#define PCI_VENDOR      0x00
#define PCI_DEVICE      0x02
#define PCI_COMMAND     0x04
#define PCI_STATUS      0x06
#define PCI_CLASS_REV   0x08
#define PCI_CACHE_LINE  0x0c
#define PCI_LATENCY     0x0d
#define PCI_HEADER_TYPE 0x0e
#define PCI_BAR0        0x10
#define PCI_SUBVENDOR   0x2c
#define PCI_SUBDEVICE   0x2e
#define PCI_ROM         0x30
#define PCI_CAP_PTR     0x34
#define PCI_INT_LINE    0x3c
#define PCI_INT_PIN     0x3d
#define PCI_HEADER_END  0x40

#define PCI_CMD_IO       0x0001
#define PCI_CMD_MEM      0x0002
#define PCI_CMD_MASTER   0x0004
#define PCI_CMD_PARITY   0x0040
#define PCI_CMD_SERR     0x0100
#define PCI_CMD_INTX_OFF 0x0400

#define PCI_ST_INTX 0x0008
#define PCI_ST_CAPS 0x0010

#define PCI_BAR_PORT     0x1
#define PCI_BAR_64       0x4
#define PCI_BAR_PREFETCH 0x8
#define PCI_ROM_ENABLE   0x1

#define PCI_CAP_ID_MSIX 0x11

#endif
