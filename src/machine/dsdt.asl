/*
 * dsdt.asl - what a PC of this machine is made of, for an ACPI operating system.
 *
 * Fixed parts, and a few numbers that acpi.c replaces in the compiled table by what the VM has. The
 * processors are in an SSDT that acpi.c writes. Nothing is External: the opcode for that came with
 * ACPI 6, and older firmware and systems cannot read a table that has it.
 *
 * PCI interrupts: a slot's INTA# goes to PIRQ line (slot - 1) mod 4, as src/pci/piix3.h wires it.
 * The lines are links to ISA interrupts 5, 10 or 11, which are level-triggered and active high, in
 * 8259 and I/O APIC mode alike (the MADT says so for the latter).
 */
DefinitionBlock ("", "DSDT", 2, "SOSIA ", "SOSIAPC ", 1)
{
    Name (\_S5, Package () { 0, 0, 0, 0 })  // SLP_TYP of soft off; there are no other sleep states

    Scope (\_SB)
    {
        // Replaced by acpi.c, which finds them by name: 32-bit constants, whatever their value.
        Name (PWLO, 0xF0000001)     // 32-bit PCI memory window: first and last address
        Name (PWHI, 0xF0000002)
        Name (PQLL, 0xF0000003)     // 64-bit PCI memory window: first address, low and high half
        Name (PQLH, 0xF0000004)
        Name (PQHL, 0xF0000005)     // last address; last < first: no such window
        Name (PQHH, 0xF0000006)
        Name (OPTD, 0xF0000007)     // optional devices: bit 0 COM1, 1 COM2, 2 FDC, 3 HPET, 4 PS/2

        // Status of a device that bit Arg0 of OPTD stands for.
        Method (OPTS, 1, NotSerialized)
        {
            If (OPTD & (1 << Arg0))
            {
                Return (0x0F)
            }
            Return (Zero)
        }

        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A03"))
            Name (_UID, Zero)

            Name (CRES, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
                    0x0000, 0x0000, 0x00FF, 0x0000, 0x0100)
                IO (Decode16, 0x0CF8, 0x0CF8, 0x01, 0x08)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0x0000, 0x0000, 0x0CF7, 0x0000, 0x0CF8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0x0000, 0x0D00, 0xFFFF, 0x0000, 0xF300)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                    0x00000000, 0x000A0000, 0x000BFFFF, 0x00000000, 0x00020000)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable,
                    ReadWrite, 0x00000000, 0xC0000000, 0xFEBFFFFF, 0x00000000,
                    0x3EC00000, , , PW32)
            })
            Name (CR64, ResourceTemplate ()
            {
                QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                    0x0, 0x8000000000, 0xFFFFFFFFFF, 0x0, 0x8000000000, , , PW64)
            })

            Method (_CRS, 0, Serialized)
            {
                CreateDWordField (CRES, ^PW32._MIN, MINL)
                CreateDWordField (CRES, ^PW32._MAX, MAXL)
                CreateDWordField (CRES, ^PW32._LEN, LENL)
                MINL = PWLO
                MAXL = PWHI
                LENL = (PWHI - PWLO) + 1
                Local0 = (PQLH << 32) | PQLL
                Local1 = (PQHH << 32) | PQHL
                If (Local1 < Local0)
                {
                    Return (CRES)
                }
                CreateQWordField (CR64, ^PW64._MIN, MINQ)
                CreateQWordField (CR64, ^PW64._MAX, MAXQ)
                CreateQWordField (CR64, ^PW64._LEN, LENQ)
                MINQ = Local0
                MAXQ = Local1
                LENQ = (Local1 - Local0) + 1
                Return (ConcatenateResTemplate (CRES, CR64))
            }

            // Built once: 32 slots of 4 pins. Slot 1's INTA# is the power management function,
            // whose interrupt is wired to 9.
            Name (PRTB, Package (128) {})
            Name (PRTD, Zero)
            Method (_PRT, 0, Serialized)
            {
                If (PRTD)
                {
                    Return (PRTB)
                }
                Local0 = Zero
                While (Local0 < 128)
                {
                    Local1 = Local0 >> 2            // slot
                    Local2 = Local0 & 3             // pin
                    Local3 = (Local1 + Local2 + 3) & 3
                    If (Local0 == 4)
                    {
                        Local4 = Package (4) { 0, 0, LNKS, 0 }
                    }
                    ElseIf (Local3 == 0)
                    {
                        Local4 = Package (4) { 0, 0, LNKA, 0 }
                    }
                    ElseIf (Local3 == 1)
                    {
                        Local4 = Package (4) { 0, 0, LNKB, 0 }
                    }
                    ElseIf (Local3 == 2)
                    {
                        Local4 = Package (4) { 0, 0, LNKC, 0 }
                    }
                    Else
                    {
                        Local4 = Package (4) { 0, 0, LNKD, 0 }
                    }
                    Local4 [0] = (Local1 << 16) | 0xFFFF
                    Local4 [1] = Local2
                    PRTB [Local0] = Local4
                    Local0++
                }
                PRTD = One
                Return (PRTB)
            }

            Device (ISA)
            {
                Name (_ADR, 0x00010000)
                OperationRegion (PIRQ, PCI_Config, 0x60, 0x04)
                Field (PIRQ, ByteAcc, NoLock, Preserve)
                {
                    PRQA, 8,
                    PRQB, 8,
                    PRQC, 8,
                    PRQD, 8
                }

                Device (PIC)
                {
                    Name (_HID, EisaId ("PNP0000"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0020, 0x0020, 0x00, 0x02)
                        IO (Decode16, 0x00A0, 0x00A0, 0x00, 0x02)
                        IO (Decode16, 0x04D0, 0x04D0, 0x00, 0x02)
                        IRQNoFlags () {2}
                    })
                }
                Device (TIMR)
                {
                    Name (_HID, EisaId ("PNP0100"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0040, 0x0040, 0x00, 0x04)
                        IRQNoFlags () {0}
                    })
                }
                Device (RTC)
                {
                    Name (_HID, EisaId ("PNP0B00"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0070, 0x0070, 0x01, 0x08)
                        IRQNoFlags () {8}
                    })
                }
                Device (SPKR)
                {
                    Name (_HID, EisaId ("PNP0800"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0061, 0x0061, 0x01, 0x01)
                    })
                }
                Device (KBD)
                {
                    Name (_HID, EisaId ("PNP0303"))
                    Method (_STA, 0, NotSerialized) { Return (OPTS (4)) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0060, 0x0060, 0x01, 0x01)
                        IO (Decode16, 0x0064, 0x0064, 0x01, 0x01)
                        IRQNoFlags () {1}
                    })
                }
                Device (MOU)
                {
                    Name (_HID, EisaId ("PNP0F13"))
                    Method (_STA, 0, NotSerialized) { Return (OPTS (4)) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IRQNoFlags () {12}
                    })
                }
                Device (FDC0)
                {
                    Name (_HID, EisaId ("PNP0700"))
                    Method (_STA, 0, NotSerialized) { Return (OPTS (2)) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x03F2, 0x03F2, 0x00, 0x04)
                        IO (Decode16, 0x03F7, 0x03F7, 0x00, 0x01)
                        IRQNoFlags () {6}
                        DMA (Compatibility, NotBusMaster, Transfer8) {2}
                    })
                }
                Device (COM1)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, One)
                    Method (_STA, 0, NotSerialized) { Return (OPTS (0)) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x03F8, 0x03F8, 0x00, 0x08)
                        IRQNoFlags () {4}
                    })
                }
                Device (COM2)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 2)
                    Method (_STA, 0, NotSerialized) { Return (OPTS (1)) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x02F8, 0x02F8, 0x00, 0x08)
                        IRQNoFlags () {3}
                    })
                }
            }
        }

        // Ports and addresses of the board that belong to no device above.
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, One)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0092, 0x0092, 0x01, 0x01)
                IO (Decode16, 0x00B2, 0x00B2, 0x01, 0x02)
                IO (Decode16, 0x0600, 0x0600, 0x01, 0x40)
                IO (Decode16, 0x0700, 0x0700, 0x01, 0x10)
                Memory32Fixed (ReadWrite, 0xFEC00000, 0x00001000)
                Memory32Fixed (ReadWrite, 0xFEE00000, 0x00100000)
            })
        }
        Device (HPET)
        {
            Name (_HID, EisaId ("PNP0103"))
            Name (_UID, Zero)
            Method (_STA, 0, NotSerialized) { Return (OPTS (3)) }
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadOnly, 0xFED00000, 0x00000400)
            })
        }
        Device (FWCF)
        {
            Name (_HID, "QEMU0002")
            Name (_STA, 0x0B)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0510, 0x0510, 0x01, 0x0C)
            })
        }

        // Status and resources of a PIRQ link from its routing register Arg0 (bit 7: not routed).
        Method (LSTA, 1, NotSerialized)
        {
            If (Arg0 & 0x80)
            {
                Return (0x09)
            }
            Return (0x0B)
        }
        Name (LRES, ResourceTemplate ()
        {
            Interrupt (ResourceConsumer, Level, ActiveHigh, Shared, , , LINT) {0}
        })
        Method (LCRS, 1, Serialized)
        {
            CreateDWordField (LRES, ^LINT._INT, LIRQ)
            LIRQ = Zero
            If ((Arg0 & 0x80) == 0)
            {
                LIRQ = Arg0 & 0x0F
            }
            Return (LRES)
        }
        Name (LPRS, ResourceTemplate ()
        {
            Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) {5, 10, 11}
        })

        Device (LNKA)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, Zero)
            Method (_STA, 0, NotSerialized) { Return (LSTA (\_SB.PCI0.ISA.PRQA)) }
            Method (_DIS, 0, NotSerialized) { \_SB.PCI0.ISA.PRQA = 0x80 }
            Method (_PRS, 0, NotSerialized) { Return (LPRS) }
            Method (_CRS, 0, NotSerialized) { Return (LCRS (\_SB.PCI0.ISA.PRQA)) }
            Method (_SRS, 1, NotSerialized)
            {
                CreateDWordField (Arg0, 5, SIRQ)
                \_SB.PCI0.ISA.PRQA = SIRQ
            }
        }
        Device (LNKB)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, One)
            Method (_STA, 0, NotSerialized) { Return (LSTA (\_SB.PCI0.ISA.PRQB)) }
            Method (_DIS, 0, NotSerialized) { \_SB.PCI0.ISA.PRQB = 0x80 }
            Method (_PRS, 0, NotSerialized) { Return (LPRS) }
            Method (_CRS, 0, NotSerialized) { Return (LCRS (\_SB.PCI0.ISA.PRQB)) }
            Method (_SRS, 1, NotSerialized)
            {
                CreateDWordField (Arg0, 5, SIRQ)
                \_SB.PCI0.ISA.PRQB = SIRQ
            }
        }
        Device (LNKC)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 2)
            Method (_STA, 0, NotSerialized) { Return (LSTA (\_SB.PCI0.ISA.PRQC)) }
            Method (_DIS, 0, NotSerialized) { \_SB.PCI0.ISA.PRQC = 0x80 }
            Method (_PRS, 0, NotSerialized) { Return (LPRS) }
            Method (_CRS, 0, NotSerialized) { Return (LCRS (\_SB.PCI0.ISA.PRQC)) }
            Method (_SRS, 1, NotSerialized)
            {
                CreateDWordField (Arg0, 5, SIRQ)
                \_SB.PCI0.ISA.PRQC = SIRQ
            }
        }
        Device (LNKD)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 3)
            Method (_STA, 0, NotSerialized) { Return (LSTA (\_SB.PCI0.ISA.PRQD)) }
            Method (_DIS, 0, NotSerialized) { \_SB.PCI0.ISA.PRQD = 0x80 }
            Method (_PRS, 0, NotSerialized) { Return (LPRS) }
            Method (_CRS, 0, NotSerialized) { Return (LCRS (\_SB.PCI0.ISA.PRQD)) }
            Method (_SRS, 1, NotSerialized)
            {
                CreateDWordField (Arg0, 5, SIRQ)
                \_SB.PCI0.ISA.PRQD = SIRQ
            }
        }
        // The system control interrupt, not routable.
        Device (LNKS)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 4)
            Name (_STA, 0x0B)
            Name (_PRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) {9}
            })
            Name (_CRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) {9}
            })
            Method (_DIS, 0, NotSerialized) {}
            Method (_SRS, 1, NotSerialized) {}
        }
    }
}
