//! From the VMM's first instruction to ring 3, for the first vCPU and for the others.
//!
//! Ring 0 is kept as small as it can be: it sets up what the CPU needs and leaves with `iretq`. All
//! Rust code runs in ring 3, where a KVM that emulates ring 0 runs it natively, where SSE needs no
//! care, and where the red zone is no danger.
//!
//! ```text
//! VMM ─▶ entry32 (PVH: 32-bit, no paging, ebx = start info) ─▶ enter64 ─▶ ring 3: clear .bss ─▶ bsp_main
//! SIPI ─▶ ap_trampoline (real mode, copied below 1 MiB) ─▶ ap_entry32 ─▶ enter64 ─▶ ring 3: ap_main
//! ```

use core::arch::global_asm;

use crate::tables::{CODE32, KERNEL_CODE, KERNEL_DATA, TSS_FIRST, USER_CODE, USER_DATA};

/// Bytes of each vCPU's ring-3 stack.
pub const STACK_BYTES: usize = 32 << 10;

/// Bytes of each vCPU's ring-0 stack: a few interrupt frames.
pub const RING0_STACK_BYTES: usize = 512;

global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18              // lengths of name and value; 18: 32-bit physical entry point
    .asciz "Xen"
    .long entry32

    .section .text.boot, "ax"

    // Goes from 32-bit protected mode to 64-bit mode, at `target`.
    .macro enter64 target
    movl $0x620, %eax           // PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      // EFER: LME
    movl $0x100, %eax
    xorl %edx, %edx
    wrmsr
    movl $0x80000033, %eax      // PG, NE, ET, MP, PE; and caches on, which INIT turns off
    movl %eax, %cr0
    ljmpl ${kernel_code}, $\target
    .endm

    .code32
    .globl entry32
entry32:
    cli
    cld
    movl %ebx, %esi             // second argument of bsp_main: the start info
    lgdt gdt_pointer
    enter64 bsp_entry64

    .code64
bsp_entry64:
    // The descriptor of vCPU 0's TSS; Rust fills in the others and all TSSs themselves.
    movl $task_states, %eax
    movw %ax, gdt + {tss_first} + 2
    shrl $16, %eax
    movb %al, gdt + {tss_first} + 4
    movb %ah, gdt + {tss_first} + 7
    xorl %edi, %edi
    movl $bsp_ring3, %edx
    jmp to_ring3

    // Ring 3 at rdx, on the stack of vCPU edi, which stays in edi; rsi stays too.
to_ring3:
    movl ${kernel_data}, %eax
    movl %eax, %ss
    movl ${user_data}, %eax
    movl %eax, %ds
    movl %eax, %es
    leal 1(%rdi), %ecx          // stacks grow down, so vCPU n begins where n + 1 ends
    movl %ecx, %eax
    shll ${ring0_stack_shift}, %eax
    leaq ring0_stacks(%rax), %rsp
    shll ${stack_shift}, %ecx
    leaq stacks(%rcx), %rcx
    lidt idt_pointer
    movl %edi, %eax
    shll $4, %eax
    addl ${tss_first}, %eax
    ltr %ax
    pushq ${user_data}
    pushq %rcx
    pushq $0x3002               // rflags: interrupts off, and off they stay in ring 3; ports are open to it,
                                // which the I/O bitmap says too: some CPUs (or emulators) heed only one
    pushq ${user_code}
    pushq %rdx
    iretq

bsp_ring3:
    // A VMM that boots a second time into the same memory may leave the first life's data here.
    movq %rsi, %rdx
    movl $bss_start, %edi
    movl $bss_end, %ecx
    subl %edi, %ecx
    shrl $3, %ecx
    xorl %eax, %eax
    rep stosq
    movl %edx, %edi
    call bsp_main
    ud2

ap_ring3:
    call ap_main
    ud2

    .code16
    .globl ap_trampoline
ap_trampoline:
    cli
    movw %cs, %ax
    movw %ax, %ds
    lgdtl (ap_gdt_pointer - ap_trampoline)
    movl $0x11, %eax            // ET, PE
    movl %eax, %cr0
    ljmpl ${code32}, $ap_entry32
    .balign 4
ap_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
    .globl ap_trampoline_end
ap_trampoline_end:

    .code32
ap_entry32:
    movl ${kernel_data}, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    enter64 ap_entry64

    .code64
ap_entry64:
    movl $1, %eax
    cpuid
    shrl $24, %ebx              // the APIC id is the number of the vCPU
    cmpl ${max_cpus}, %ebx
    jae 1f
    movl %ebx, %edi
    movl $ap_ring3, %edx
    jmp to_ring3
1:  hlt                         // no tables for it: it stays here, and is missing from the count
    jmp 1b

    .section .data.tables, "aw"
    // Page tables: the low 4 GiB one to one in pages of 2 MiB, for ring 3 too. Rust adds the rest.
    .balign 4096
    .globl boot_pml4
boot_pml4:
    .quad boot_pdpt + 7
    .fill 511, 8, 0
    .globl boot_pdpt
boot_pdpt:
    .quad boot_pd + 7, boot_pd + 0x1007, boot_pd + 0x2007, boot_pd + 0x3007
    .fill 508, 8, 0
boot_pd:
    .set address, 0
    .rept 2048
    .if address == 0xfee00000
    .quad address + 0x9f        // the local APIC: not to be cached
    .else
    .quad address + 0x87
    .endif
    .set address, address + 0x200000
    .endr

    .balign 16
    .globl gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    // kernel code, 64 bits
    .quad 0x00cf93000000ffff    // kernel data
    .quad 0x00cf9b000000ffff    // kernel code, 32 bits
    .quad 0x00cff3000000ffff    // user data
    .quad 0x00affb000000ffff    // user code, 64 bits
    .rept {max_cpus}            // a TSS for each vCPU; the base is filled in later
    .quad 0x0000890000000000 + {tss_limit}
    .quad 0
    .endr
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
idt_pointer:
    .word 256 * 16 - 1
    .quad idt
    .text
    "#,
    kernel_code = const KERNEL_CODE,
    kernel_data = const KERNEL_DATA,
    code32 = const CODE32,
    user_data = const USER_DATA,
    user_code = const USER_CODE,
    tss_first = const TSS_FIRST,
    tss_limit = const crate::tables::TSS_LIMIT,
    max_cpus = const crate::cmdline::MAX_CPUS,
    stack_shift = const STACK_BYTES.trailing_zeros(),
    ring0_stack_shift = const RING0_STACK_BYTES.trailing_zeros(),
    options(att_syntax),
);
